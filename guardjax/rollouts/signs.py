"""The reward-hacking panel: all signs of a run, the raised ones first."""

from __future__ import annotations

from guardjax.rollouts.answer_table import AnswerTable
from guardjax.rollouts.run_log import RunLog
from guardjax.rollouts.sign import Sign
from guardjax.rollouts.signs_of_answers import (
    copies,
    corpus_shapes,
    exploration,
    malformed,
    same_answers,
    sampler_gap,
    verdict_collapse,
)
from guardjax.rollouts.signs_of_reward import (
    length_pays,
    parting_ways,
    what_parts_pay,
    wrong_but_paid,
)


def find_signs(run: RunLog) -> list[Sign]:
    """Signs from the recorded groups (weighed) and from the metrics (over all answers).

    "Early" and "late" are the first and the last third of the recorded steps.
    """
    early, late = AnswerTable.of(run.groups).thirds()
    signs = [
        wrong_but_paid(late), parting_ways(run), what_parts_pay(run, late),
        length_pays(early, late), malformed(early, late), corpus_shapes(early, late),
        copies(early, late), same_answers(late), verdict_collapse(run, late), exploration(run),
        sampler_gap(run)]
    order = {True: 0, False: 1, None: 2}
    return sorted(signs, key=lambda sign: order[sign.raised])
