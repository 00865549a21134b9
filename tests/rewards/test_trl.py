"""Functions in TRL's convention, plain and async, are taken as they are."""

import asyncio

import numpy as np
import pytest

from guardjax.rewards import RewardError, call_reward, from_trl


def test_columns_and_none(make):
    seen = {}

    def length(prompts, completions, **columns):
        seen.update(columns, prompts=prompts)
        return [float(len(c)) if c else None for c in completions]

    examples = [make(answer="<answer>safe</answer>"), make(label="safe")]
    value, applies = call_reward("length", from_trl(length), examples, ["abc", ""])
    np.testing.assert_array_equal(value, [3, 0])
    np.testing.assert_array_equal(applies, [True, False])
    assert seen["label"] == ["unsafe", "safe"] and seen["rule_ids"] == [("R2",), ()]
    assert seen["solution"] == seen["answer"] == ["<answer>safe</answer>", ""]
    assert "knives" in seen["prompts"][0] and "follow the policy" in seen["prompts"][0]


def test_only_named_columns_are_passed(make):
    def exact(completions, solution):
        return [float(a == b) for a, b in zip(completions, solution)]

    value, _ = call_reward("exact", from_trl(exact), [make(answer="yes")], ["yes"])
    assert value == [1.0]
    assert from_trl(exact).__name__ == "exact"


def test_chats_are_lists_of_one_message(make):
    def told(prompts, completions):
        assert prompts[0][0]["role"] == "user" and completions[0][0]["role"] == "assistant"
        return [float(len(completion[0]["content"])) for completion in completions]

    value, _ = call_reward("told", from_trl(told, conversational=True), [make()], ["abcd"])
    assert value == [4.0]
    with pytest.raises(RewardError, match="string indices .* conversational=True"):
        call_reward("told", from_trl(lambda completions: [
            completion[0]["content"] for completion in completions]), [make()], ["abcd"])


def test_async_is_waited_for_also_where_a_loop_is_running(make):
    async def slow(completions):
        await asyncio.sleep(0)
        return [None if not completion else 2.0 for completion in completions]

    async def notebook():
        return call_reward("slow", from_trl(slow), [make(), make()], ["a", ""])

    for value, applies in (call_reward("slow", from_trl(slow), [make(), make()], ["a", ""]),
                           asyncio.run(notebook())):
        np.testing.assert_array_equal(value, [2, 0])
        np.testing.assert_array_equal(applies, [True, False])


@pytest.mark.parametrize("function, problem", [
    (lambda completions: [1.0], "wanted 2 values"),
    (lambda completions: [1.0, float("nan")], "row 1: value nan"),
    (lambda completions: 1.0, "raised TypeError"),
    (lambda completions: None, "raised TypeError"),
    (lambda completions: 1 / 0, "raised ZeroDivisionError"),
])
def test_failures_are_named(make, function, problem):
    with pytest.raises(RewardError, match=problem):
        call_reward("theirs", from_trl(function), [make(), make()], ["a", "b"])


def test_what_cannot_be_given_is_said_at_once():
    from_trl(lambda completions, trainer_state=None: [])
    with pytest.raises(ValueError, match="wants 'trainer_state', .* prompts, completions, "):
        from_trl(lambda completions, trainer_state: [])
