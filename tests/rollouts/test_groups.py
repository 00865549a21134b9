"""What `groups.jsonl` keeps: every sort of group, the rollout's numbers, within bounds."""

import json

import numpy as np
import pytest

from guardjax.policies import parse_verdict
from guardjax.rewards import gaming
from guardjax.train.stages import groups
from guardjax.train.stages.groups import SampledStep, choose_groups, clip_text
from guardjax.train.stages.rollout import Rollout
from .fake_run import GROUP, Words, examples, honest, long_text, rollout


def sampled(texts_of, ended=None, asked=None):
    """A step whose prompt `b` is answered with `texts_of(example)`, a list of G."""
    asked = examples(0) if asked is None else asked
    texts = [text for example in asked for text in texts_of(example)]
    return SampledStep([rollout(asked, texts, "gated", ended)], Words(texts))


def one_each(example):
    """Prompts 0 to 3 of each eight: with signal, all wrong, all right, with signal again."""
    right, wrong = gaming.honest_right(example), gaming.honest_wrong(example)
    place = int(example.example_id.split("-")[1].split("/")[0]) % 4
    return [[right, wrong] * 4, [wrong] * 8, [right] * 8, [right, "", wrong, wrong] * 2][place]


def test_every_sort_is_kept_in_turns():
    sorts = ["signal"] * 5 + ["all_wrong", "all_right", "unrewarded", "unrewarded"]
    assert choose_groups(sorts, 4) == [0, 5, 6, 7]
    assert choose_groups(sorts, 6) == [0, 5, 6, 7, 1, 8]
    assert choose_groups(["signal"] * 3, 8) == [0, 1, 2]
    assert choose_groups([], 8) == [] and choose_groups(["unrewarded"] * 5, 8) == [0, 1]


def test_a_step_keeps_groups_of_every_sort_and_says_for_how_many_each_stands():
    kept = sampled(one_each).groups()
    assert [group["prompt"] for group in kept] == sorted(group["prompt"] for group in kept)
    assert len(kept) == groups.GROUPS_A_STEP
    sorts = [group["sort"] for group in kept]
    assert set(sorts) == {"signal", "all_wrong", "all_right"}
    # Of 16 prompts 8 have signal, 4 are all wrong and 4 all right; the weights add up again.
    for sort, number in {"signal": 8, "all_wrong": 4, "all_right": 4}.items():
        total = sum(group["stands_for"] for group in kept if group["sort"] == sort)
        assert total == pytest.approx(number)
    assert sampled(one_each).groups() == kept


def test_the_numbers_are_those_of_the_rollout():
    """Against NumPy on the arrays that the update is computed from."""
    rng = np.random.default_rng(0)
    step = sampled(lambda example: [honest(rng, example, 0.2) for _ in range(GROUP)])
    drawn, arrays = step.rollouts[0], step.rollouts[0].answers()
    for group in step.groups():
        b, example = group["prompt"], drawn.examples[group["prompt"]]
        rewards = arrays["rewards"][b].astype(np.float64)
        assert group["policy"] == example.policy_text and group["label"] == example.label
        assert group["mean"] == pytest.approx(rewards.mean())
        assert group["std"] == pytest.approx(rewards.std(ddof=1))
        for g, answer in enumerate(group["answers"]):
            text = drawn.texts[b * GROUP + g]
            verdict = parse_verdict(text, example.facts["rules"])
            assert answer["text"] == text and answer["outcome"] == verdict.outcome
            assert answer["right"] == (verdict.outcome == example.label)
            assert answer["reward"] == pytest.approx(rewards[g])
            assert answer["centred"] == pytest.approx(rewards[g] - rewards.mean())
            assert answer["logp"] == pytest.approx(-0.25 * arrays["length"][b, g])
            assert answer["parts"] == {"verdict": pytest.approx(rewards[g])}


def test_a_cut_answer_is_shown_and_counts_for_nothing():
    ended = np.ones((16, GROUP), bool)
    ended[0, 0] = False
    group = sampled(lambda example: [gaming.honest_right(example)] * GROUP, ended).groups()[0]
    cut = group["answers"][0]
    assert cut["text"] == "<answer>safe</answer>" and not cut["ended"]
    assert (cut["problem"], cut["right"], cut["reward"]) == ("truncated", False, 0.0)


def test_prompts_without_a_label_have_no_verdict_and_no_reward():
    asked = [type(example)(**{**vars(example), "label": None, "answer": " a dog"})
             for example in examples(0)]
    step = sampled(lambda example: [" a dog"] * GROUP, asked=asked)
    group = step.groups()[0]
    assert group["sort"] == "unrewarded" and group["mean"] is group["std"] is None
    assert group["answers"][0]["reward"] is group["answers"][0]["outcome"] is None


def test_a_step_is_bounded_and_holds_at_least_one_group():
    assert clip_text("a" * groups.TEXT_CHARS) == "a" * groups.TEXT_CHARS
    clipped = clip_text(long_text())
    assert clipped.startswith("word0 ") and clipped.endswith("word899")
    assert len(clipped) < groups.TEXT_CHARS + 60

    for size, most in ((8, groups.STEP_BYTES), (64, 10**9)):
        step = sampled(lambda example, size=size: [long_text()] * size, asked=examples(0)[:8])
        kept = step.groups()
        written = sum(len(json.dumps(group, ensure_ascii=False).encode()) for group in kept)
        assert 1 <= len(kept) < groups.GROUPS_A_STEP and written < most + 500
        assert sum(group["stands_for"] for group in kept) == pytest.approx(8)


def test_numbers_that_json_cannot_hold_become_null():
    step = sampled(lambda example: [gaming.honest_right(example)] * GROUP)
    drawn = step.rollouts[0]
    logp = np.full_like(drawn.samples.logp, np.nan)
    broken = Rollout(**{**vars(drawn), "samples": drawn.samples.replace(logp=logp)})
    kept = SampledStep([broken], step.tokenizer).groups()
    assert kept[0]["answers"][0]["logp"] is None
    json.dumps(kept, allow_nan=False)


def test_all_rounds_of_a_step_are_chosen_from():
    first, second = (sampled(lambda example, say=say: [say(example)] * GROUP).rollouts[0]
                     for say in (gaming.honest_right, gaming.honest_wrong))
    kept = SampledStep([first, second], Words([])).groups()
    assert {group["prompts"] for group in kept} == {32}
    assert [group["sort"] for group in kept] == ["all_right"] * 4 + ["all_wrong"] * 4
    assert [group["prompt"] for group in kept] == [0, 1, 2, 3, 16, 17, 18, 19]
