"""Saying in time that a run cannot learn: no group of answers has two different rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

SILENT_STEPS = 20
MOSTLY = 0.9        # a share of answers that explains it
SURE = 0.02         # nats a token, below which answers hardly differ


class SilenceWatch:
    """Warns once a stage, after `SILENT_STEPS` steps in a row without any signal."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._stage = ""
        self._silent = 0
        self._told = False

    def observe(self, stage: str, steps: int, means: Mapping[str, float]) -> None:
        """Looks at the means of the last `steps` steps; stages without groups pass by."""
        if stage != self._stage:
            self._stage, self._silent, self._told = stage, 0, False
        share = means.get("grpo/zero_variance", 0.0)
        if math.isnan(share):       # prompts without a label only
            return
        silent = share == 1.0
        self._silent = self._silent + steps if silent else 0
        if self._silent >= SILENT_STEPS and not self._told:
            self._told = True
            self._tell(f"{stage}: in the last {self._silent} steps all answers to a prompt had the "
                       f"same reward, so the reward teaches nothing. {likely_cause(means)}")


def likely_cause(means: Mapping[str, float]) -> str:
    """What the metrics of a silent run point to, and what to do about it."""
    def share(name: str) -> float:
        value = means.get(name, math.nan)
        return 0.0 if math.isnan(value) else value

    if share("rollout/truncated") > MOSTLY:
        return (f"{share('rollout/truncated'):.0%} of answers are cut: raise `rl.max_tokens`, or "
                "teach the form of an answer first (a stage `sft`).")
    if share("rollout/invalid") > MOSTLY:
        return (f"{share('rollout/invalid'):.0%} of answers are malformed: teach the form of an "
                "answer first (a stage `sft`), or look at `samples.jsonl` for what is said.")
    if share("grpo/entropy") < SURE:
        return ("The model is sure of every word: raise `rl.temperature`, start from an earlier "
                "model, or choose harder prompts.")
    if share("rollout/right") > MOSTLY:
        return "Nearly all answers are right: choose harder prompts."
    return ("Answers differ and the reward does not: it does not look at what differs. Try it by "
            "hand on lines of `samples.jsonl`.")
