"""A run without any signal says so, once, with what its metrics point to."""

import math

import pytest

from guardjax.train.silence import SILENT_STEPS, SilenceWatch, likely_cause

SILENT = {"grpo/zero_variance": 1.0, "grpo/entropy": 1.0, "rollout/truncated": 0.0,
          "rollout/invalid": 0.0, "rollout/right": 0.5}


def test_says_so_once_a_stage_and_only_in_a_row():
    told = []
    watch = SilenceWatch(told.append)
    half = SILENT_STEPS // 2
    watch.observe("grpo", half, SILENT)
    watch.observe("grpo", half, SILENT | {"grpo/zero_variance": 0.99})
    watch.observe("grpo", half, SILENT)
    watch.observe("next", half, SILENT)
    assert not told
    for _ in range(3):
        watch.observe("next", half, SILENT)
    watch.observe("sft", SILENT_STEPS, {"sft/loss": 1.0})
    watch.observe("last", half, SILENT)
    watch.observe("last", half, SILENT | {"grpo/zero_variance": math.nan})
    assert len(told) == 1
    watch.observe("last", half, SILENT)
    assert told.pop().startswith("last")
    line, = told
    assert line.startswith(f"next: in the last {SILENT_STEPS} steps") and "teaches nothing" in line


@pytest.mark.parametrize("means, cause", [
    ({"rollout/truncated": 0.97, "rollout/invalid": 1.0}, "97% of answers are cut: raise `rl.max"),
    ({"rollout/invalid": 1.0}, "100% of answers are malformed"),
    ({"grpo/entropy": 0.001}, "sure of every word: raise `rl.temperature`"),
    ({"rollout/right": 0.95}, "choose harder prompts"),
    ({}, "Answers differ and the reward does not"),
    ({"rollout/right": math.nan}, "Answers differ and the reward does not"),
])
def test_the_likely_cause(means, cause):
    assert cause in likely_cause(SILENT | means)
