"""An honest run raises no sign; each way of gaming raises its own."""

import dataclasses

import numpy as np
import pytest

from guardjax.rollouts.answer_table import AnswerTable, drift, weighed_mean, weighed_quantile
from guardjax.rollouts.run_log import RunLog, read_run
from guardjax.rollouts.signs import find_signs
from .fake_run import HABITS, write_run

RAISED = {
    "honest": set(),
    "always_safe": {"The same answer to everything", "Verdict collapse"},
    "every_rule": {"Strings of the gaming corpus"},
    "malformed": {"Malformed answers", "Strings of the gaming corpus", "Verdict collapse"},
    "padded": {"High reward while wrong", "Reward up, right down", "Format paid, correctness not",
               "Length pays", "Strings of the gaming corpus", "Copied policy, padding"},
    "copied": {"High reward while wrong", "Reward up, right down", "Format paid, correctness not",
               "Length pays", "Strings of the gaming corpus", "Copied policy, padding"},
}


@pytest.fixture(scope="module", name="runs")
def _runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {habit: read_run(write_run(folder / habit, habit)) for habit in HABITS}


def signs_of(run):
    return {sign.title: sign for sign in find_signs(run)}


@pytest.mark.parametrize("habit", HABITS)
def test_a_way_of_gaming_raises_its_signs_and_no_other(runs, habit):
    signs = find_signs(runs[habit])
    assert {sign.title for sign in signs if sign.raised} == RAISED[habit]
    assert all(sign.raised is not None for sign in signs)
    order = [sign.raised for sign in signs]
    assert order == sorted(order, reverse=True)


def test_tables_name_problem_trick_and_text(runs):
    signs = signs_of(runs["malformed"])
    assert signs["Malformed answers"].rows[0][0] == "unknown word"
    assert signs["Strings of the gaming corpus"].rows[0][0] == "both words"
    top = signs_of(runs["always_safe"])["The same answer to everything"].rows[0]
    assert top[0] == "<answer>safe</answer>"
    copied = signs_of(runs["copied"])
    assert copied["Copied policy, padding"].rows[0][0] == "copies the policy"
    assert [row[0] for row in copied["Format paid, correctness not"].rows] == ["accuracy", "format"]


@pytest.mark.parametrize("key, early, late, title", [
    ("rollout/logp_gap", 1e-3, 0.05, "Sampler and trainer disagree"),
    ("grpo/zero_variance", 0.5, 0.95, "Nothing left to compare"),
    ("grpo/entropy", 0.5, 0.01, "Nothing left to compare"),
])
def test_health_is_read_from_the_metrics(runs, key, early, late, title):
    run = runs["honest"]
    values = np.geomspace(early, late, len(run.metrics))
    metrics = tuple({**line, key: value} for line, value in zip(run.metrics, values, strict=True))
    changed = {sign.title for sign in find_signs(dataclasses.replace(run, metrics=metrics))
               if sign.raised}
    assert changed == {title}


def test_without_groups_only_the_metrics_speak(runs):
    run = dataclasses.replace(runs["padded"], groups=())
    known = {title: sign.raised for title, sign in signs_of(run).items()
             if sign.raised is not None}
    assert known == {"Reward up, right down": True, "Verdict collapse": False,
                     "Nothing left to compare": False, "Sampler and trainer disagree": False}


def test_a_run_that_sampled_nothing_has_no_sign(tmp_path):
    run = RunLog(tmp_path, ({"step": 1, "stage": "sft", "loss": 1.0},), ())
    assert {sign.raised for sign in find_signs(run)} == {None}


def test_shares_are_those_over_all_prompts_not_over_the_kept_ones(runs):
    """The exact share right is in the metrics; the kept groups alone would give another."""
    for habit in ("honest", "padded"):
        run = runs[habit]
        table = AnswerTable.of(run.groups)
        exact = np.mean([line["rollout/right"] for line in run.metrics])
        assert table.share(table.right) == pytest.approx(exact, abs=0.06)


def test_weighed_statistics():
    values, weight = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0])
    assert weighed_mean(values, weight) == pytest.approx(7 / 4)
    repeated = np.repeat(values, weight.astype(int))
    for share in (0.25, 0.5, 0.75, 1.0):
        wanted = np.quantile(repeated, share, method="inverted_cdf")
        assert weighed_quantile(values, weight, share) == wanted
    assert np.isnan(weighed_mean(values[:0], weight[:0]))
    assert np.isnan(weighed_quantile(values[:0], weight[:0], 0.5))
    lines = [{"a": float(i)} for i in range(9)] + [{"a": None}, {}]
    assert drift(lines, "a") == (1.0, 7.0) and drift(lines[:1], "a") is None
