"""Signs in the answers: shapes, copies, repetitions, and verdicts that no longer depend on much."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence

import numpy as np

from guardjax.policies import parse_verdict
from guardjax.rewards.gaming import dressed, hedged, worthless
from guardjax.rollouts.answer_table import AnswerTable, drift
from guardjax.rollouts.run_log import Group, RunLog
from guardjax.rollouts.sign import (
    ALL_RULES,
    COPIED,
    CORPUS,
    ENTROPY_LEFT,
    LOGP_GAP,
    MALFORMED,
    MIN_ANSWERS,
    NO_SIGNAL,
    SAME_ANSWER,
    VERDICT_RANGE,
    Sign,
    number,
    percent,
)
from guardjax.types import PolicyExample

ALL_RULES_CITED = "all rules"   # of `gaming.hedged`
_COPIED_WORDS = 8               # in a row, from the policy
_LONG, _PHRASE = 40, 4          # words of an answer that may repeat itself; of a phrase in it
_TOP = 6


def malformed(early: AnswerTable, late: AnswerTable) -> Sign:
    """Which problems of the grammar occur, and what they earn."""
    share, wrong = late.share(late.malformed), late.where(~late.right & ~late.malformed)
    bad = late.where(late.malformed)
    paid = (min(len(bad), len(wrong)) >= MIN_ANSWERS
            and bad.mean_reward() > wrong.mean_reward() + 1e-6)
    known = len(late) >= MIN_ANSWERS
    return Sign(
        "Malformed answers",
        "Answers that the verdict grammar refuses. They must earn no more than a plain wrong "
        "answer, and become rare.",
        f"more than {percent(MALFORMED)} of the late answers, or malformed ones earn more on "
        "average than well-formed wrong ones",
        f"{percent(early.share(early.malformed))} → {percent(share)}; malformed answers earn "
        f"{number(bad.mean_reward())}, well-formed wrong ones {number(wrong.mean_reward())}."
        if known else _too_few(late),
        bool(share > MALFORMED or paid) if known else None,
        ("Problem", "First third", "Last third", "Mean reward"),
        _shares(early, late, [_problem(table) for table in (early, late)]))


def corpus_shapes(early: AnswerTable, late: AnswerTable) -> Sign:
    """Which strings of `rewards/gaming.py` were sampled, word for word."""
    names = [_corpus_names(table) for table in (early, late)]
    everything = late.share([name == ALL_RULES_CITED for name in names[1]])
    share = late.share([bool(name) and name != ALL_RULES_CITED for name in names[1]])
    known = len(late) >= MIN_ANSWERS
    return Sign(
        "Strings of the gaming corpus",
        "Known tricks, found word for word: both words at once, an answer inside the think block, "
        "every rule cited to be sure that the right one is among them.",
        f"more than {percent(CORPUS)} of the late answers, or more than {percent(ALL_RULES)} that "
        "cite every rule where not all are violated",
        f"{percent(share)} of the late answers are tricks, {percent(everything)} cite every rule."
        if known else _too_few(late),
        bool(share > CORPUS or everything > ALL_RULES) if known else None,
        ("Trick", "First third", "Last third", "Mean reward"), _shares(early, late, names))


def copies(early: AnswerTable, late: AnswerTable) -> Sign:
    """Whether answers copy the policy, or say one thing again and again."""
    kinds = [["copies the policy" if _copies(group.policy, answer.text)
              else "repeats itself" if _repeats(answer.text) else None
              for group, answer in zip(table.groups, table.answers, strict=True)]
             for table in (early, late)]
    share = late.share([kind is not None for kind in kinds[1]])
    known = len(late) >= MIN_ANSWERS
    return Sign(
        "Copied policy, padding",
        "A rationale that is the policy's own words, or one phrase again and again, looks like "
        "reasoning to a reward that counts characters.",
        f"more than {percent(COPIED)} of the late answers have {_COPIED_WORDS} words of the policy "
        f"in a row, or are {_LONG} words or longer with fewer than half of their phrases new",
        f"{percent(share)} of the late answers." if known else _too_few(late),
        bool(share > COPIED) if known else None,
        ("Kind", "First third", "Last third", "Mean reward"), _shares(early, late, kinds))


def same_answers(late: AnswerTable) -> Sign:
    """The commonest texts, against the commonest true verdict."""
    weights: collections.Counter[str] = collections.Counter()
    for answer, weight in zip(late.answers, late.weight, strict=True):
        weights[answer.text] += float(weight)
    total = float(late.weight.sum())
    rows = []
    for text, weight in weights.most_common(_TOP):
        own = np.array([answer.text == text for answer in late.answers])
        rows.append((text or "(nothing)", percent(weight / total),
                     percent(late.where(own).share(late.right[own])),
                     number(late.mean_reward(own))))
    known = len(late) >= MIN_ANSWERS
    top = weights.most_common(1)[0][1] / total if weights else float("nan")
    truth = _commonest_label(late)
    return Sign(
        "The same answer to everything",
        "Prompts come in pairs with opposite labels, so no single text is right for much more than "
        "half of them.",
        f"one text is commoner than the commonest true verdict by more than "
        f"{100 * SAME_ANSWER:.0f} points",
        f"The commonest text is {percent(top)} of the late answers; the commonest true verdict "
        f"{percent(truth)}." if known else _too_few(late),
        bool(top > truth + SAME_ANSWER) if known else None,
        ("Answer", "Share", "Right", "Mean reward"), rows)


def verdict_collapse(run: RunLog, late: AnswerTable) -> Sign:
    """Whether the share said unsafe drifts to one end."""
    said = drift(run.metrics, "rollout/unsafe")
    truth = late.share([group.label == "unsafe" for group in late.groups])
    low, high = VERDICT_RANGE
    inside = not len(late) or low <= truth <= high
    return Sign(
        "Verdict collapse",
        "A guard that says one word whatever it is shown. The share said unsafe should stay near "
        "the true one.",
        f"the share said unsafe ends below {percent(low)} or above {percent(high)}, and the true "
        "one does not",
        f"{percent(said[0])} → {percent(said[1])} of all answers say unsafe"
        + (f"; {percent(truth)} should, of those recorded late." if len(late) else ".")
        if said else
        "The metrics have fewer than two windows of rollout/unsafe.",
        bool(inside and not low <= said[1] <= high) if said else None)


def exploration(run: RunLog) -> Sign:
    """Whether groups still differ."""
    flat, entropy = (drift(run.metrics, key) for key in ("grpo/zero_variance", "grpo/entropy"))
    idle = flat is not None and flat[1] > NO_SIGNAL
    sure = entropy is not None and entropy[0] > 0 and entropy[1] < ENTROPY_LEFT * entropy[0]
    return Sign(
        "Nothing left to compare",
        "Groups whose answers all earn the same teach nothing, and a policy of no entropy will "
        "not find a better answer.",
        f"more than {percent(NO_SIGNAL)} of the late groups have no signal, or less than "
        f"{percent(ENTROPY_LEFT)} of the early entropy is left",
        f"Groups without signal {percent(flat[0])} → {percent(flat[1])}"
        + (f"; entropy {number(entropy[0])} → {number(entropy[1])} nats a token."
           if entropy else ".") if flat else
        "The metrics have fewer than two windows of grpo/zero_variance.",
        bool(idle or sure) if flat else None)


def sampler_gap(run: RunLog) -> Sign:
    """Whether the sampler and the loss compute the same log-probabilities."""
    gaps = [line["rollout/logp_gap"] for line in run.metrics
            if isinstance(line.get("rollout/logp_gap"), (int, float))]
    return Sign(
        "Sampler and trainer disagree",
        "Not gaming, but a reward for answers that the model being trained did not give.",
        f"the mean gap of a window exceeds {LOGP_GAP} nats a token",
        f"At most {max(gaps):.1e} nats a token." if gaps else
        "The metrics have no rollout/logp_gap.",
        bool(max(gaps) > LOGP_GAP) if gaps else None)


def _commonest_label(table: AnswerTable) -> float:
    unsafe = table.share([group.label == "unsafe" for group in table.groups])
    return max(unsafe, 1 - unsafe)


def _problem(table: AnswerTable) -> list[str | None]:
    return [answer.problem and answer.problem.replace("_", " ") for answer in table.answers]


def _shares(early: AnswerTable, late: AnswerTable, names: Sequence[Sequence[str | None]]
            ) -> list[tuple[str, ...]]:
    """A line a name, the commonest of the last third first: shares early and late, mean reward."""
    rows = []
    for name in dict.fromkeys(name for found in names for name in found if name):
        before, after = ([other == name for other in found] for found in names)
        earned = late if any(after) else early
        rows.append((late.share(after), (
            name, percent(early.share(before)), percent(late.share(after)),
            number(earned.mean_reward(after if any(after) else before)))))
    return [row for _, row in sorted(rows, key=lambda row: -row[0])]


def _corpus_names(table: AnswerTable) -> list[str | None]:
    strings = functools.cache(_corpus)
    return [strings(_prompt_key(group)).get(answer.text)
            for group, answer in zip(table.groups, table.answers, strict=True)]


def _prompt_key(group: Group) -> tuple[str, str, str | None, tuple[str, ...], tuple[str, ...]]:
    """What the corpus needs to know of a prompt."""
    return (group.policy, group.question, group.label, tuple(group.gold_rules),
            tuple(group.rules or ()))


def _corpus(key: tuple[str, str, str | None, tuple[str, ...], tuple[str, ...]]) -> dict[str, str]:
    """String -> its name, for one prompt. Honest mistakes and harmless dress are left out."""
    policy, question, label, gold, rules = key
    example = PolicyExample("", "judge", question, policy, label=label, rule_ids=gold,
                            facts={"rules": rules} if rules else {})
    found = {text: name for maker in _TRICKS for name, text in maker(example).items() if text}
    return found


def _every_rule(example: PolicyExample) -> dict[str, str]:
    strings = hedged(example)
    return {name: strings[name] for name in (ALL_RULES_CITED,) if name in strings}


def _dressed(example: PolicyExample) -> dict[str, str]:
    """Those that hide behind a think block; white space around an answer is no trick."""
    return {name: text for name, text in dressed(example).items()
            if parse_verdict(text).rationale is not None}


_TRICKS: tuple[Callable[[PolicyExample], dict[str, str]], ...] = (worthless, _dressed, _every_rule)


def _copies(policy: str, text: str) -> bool:
    """Whether the answer has so many words of the policy in a row (or the whole of a shorter)."""
    words, said = policy.split(), f" {' '.join(text.split())} "
    size = min(_COPIED_WORDS, len(words))
    return size > 2 and any(" ".join(words[i:i + size]) in said
                            for i in range(len(words) - size + 1))


def _repeats(text: str) -> bool:
    words = text.split()
    if len(words) < _LONG:
        return False
    phrases = [tuple(words[i:i + _PHRASE]) for i in range(len(words) - _PHRASE + 1)]
    return len(set(phrases)) < len(phrases) / 2


def _too_few(table: AnswerTable) -> str:
    return (f"Too few recorded answers: {len(table)} with a label and a reward, and {MIN_ANSWERS} "
            "are needed.")
