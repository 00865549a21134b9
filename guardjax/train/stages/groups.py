"""Whole groups for people to read: what `groups.jsonl` keeps of a step's rollout.

One line is one prompt with all its G answers, as `guardjax rollouts` shows them. A step keeps a
few prompts, of every sort that it has, and each line says for how many prompts of its sort it
stands, so that shares over all prompts can be estimated from the few.

Bounds: `GROUPS_A_STEP` lines, and `STEP_BYTES` a step unless one group alone is larger; texts
longer than `TEXT_CHARS` lose their middle. A group of 8 short verdicts takes about 2 KB.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from guardjax.policies import parse_verdict
from guardjax.train.console import SampleRow
from guardjax.train.stages.rollout import Rollout

GROUPS_A_STEP = 8
UNREWARDED_A_STEP = 2   # nothing is compared in them: a look at what anchors say is enough
STEP_BYTES = 64 * 1024
TEXT_CHARS = 2000
_TAIL_CHARS = 500       # the end of a long answer is where its verdict is

# What a group teaches. Kept in turns in this order, so that no sort crowds out another.
SORTS = (
    "signal",           # rewards differ: the group has a gradient
    "all_wrong",        # rewards are equal, no answer is right
    "all_right",        # rewards are equal, every answer is right
    "no_signal",        # rewards are equal though some answers are right and some wrong
    "unrewarded",       # no reward applies, as for anchors
)


@dataclasses.dataclass(frozen=True)
class SampledStep:
    """All rollouts of a step, as `loop.Shown`: nothing is made before it is asked for."""

    rollouts: Sequence[Rollout]
    tokenizer: Any                      # of the answers

    def table(self) -> list[SampleRow]:
        """One answer each of the first few prompts."""
        return self.rollouts[0].table()

    def groups(self) -> list[dict[str, Any]]:
        """The groups to keep, by prompt; everything follows from what was sampled."""
        drawn = [(rollout, b) for rollout in self.rollouts for b in range(len(rollout.examples))]
        sorts = [_sort(rollout, b) for rollout, b in drawn]
        kept: list[dict[str, Any]] = []
        size = 0
        for prompt in choose_groups(sorts):
            record = {"prompt": prompt, "prompts": len(drawn), "sort": sorts[prompt],
                      **_record(*drawn[prompt], self.tokenizer)}
            size += len(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
            if kept and size > STEP_BYTES:
                break
            kept.append(record)
        for sort in SORTS:
            same = [record for record in kept if record["sort"] == sort]
            for record in same:
                record["stands_for"] = sorts.count(sort) / len(same)
        return sorted(kept, key=lambda record: record["prompt"])


def choose_groups(sorts: Sequence[str], limit: int = GROUPS_A_STEP) -> list[int]:
    """Indices of at most `limit` prompts: the first of every sort, then the second, and so on."""
    waiting = [[i for i, found in enumerate(sorts) if found == sort] for sort in SORTS]
    waiting[-1] = waiting[-1][:UNREWARDED_A_STEP]
    turns = itertools.zip_longest(*waiting)
    return [i for turn in turns for i in turn if i is not None][:limit]


def clip_text(text: str) -> str:
    """At most about `TEXT_CHARS` characters: the beginning and the end of a longer text."""
    if len(text) <= TEXT_CHARS:
        return text
    left_out = len(text) - TEXT_CHARS
    return (f"{text[:TEXT_CHARS - _TAIL_CHARS]} … [{left_out} characters left out] … "
            f"{text[-_TAIL_CHARS:]}")


def _answers_of(rollout: Rollout, b: int) -> range:
    group = rollout.samples.length.shape[1]
    return range(b * group, (b + 1) * group)


def _right(rollout: Rollout, b: int) -> list[bool]:
    example = rollout.examples[b]
    return [parse_verdict(rollout.texts[i], example.facts.get("rules")).outcome == example.label
            for i in _answers_of(rollout, b)]


def _sort(rollout: Rollout, b: int) -> str:
    if not rollout.scores.applies[list(_answers_of(rollout, b))].any():
        return "unrewarded"
    if not rollout.flat[b]:
        return "signal"
    right = _right(rollout, b)
    if all(right):
        return "all_right"
    return "no_signal" if any(right) else "all_wrong"


def _record(rollout: Rollout, b: int, tokenizer: Any) -> dict[str, Any]:
    example, answers = rollout.examples[b], rollout.answers()
    rewards, valid = np.asarray(answers["rewards"][b], np.float64), answers["valid"][b]
    mean = float(rewards[valid].mean()) if valid.any() else None
    std = float(rewards[valid].std(ddof=1)) if valid.sum() > 1 else None
    known = example.facts.get("rules")
    return {
        "example_id": example.example_id, "kind": example.kind, "image_id": example.image_id,
        "policy_id": example.policy_id, "pair_id": example.pair_id,
        "policy": clip_text(example.policy_text), "question": clip_text(example.question),
        "label": example.label, "gold_rules": list(example.rule_ids),
        "answer": clip_text(example.answer), "rules": None if known is None else list(known),
        "mean": mean, "std": std,
        "answers": [_answer(rollout, b, g, tokenizer, float(rewards[g]), mean)
                    for g in range(len(rewards))]}


def _answer(rollout: Rollout, b: int, g: int, tokenizer: Any, reward: float, mean: float | None,
            ) -> dict[str, Any]:
    """One answer; `reward` is what was learnt from, and `centred` how much better than its group.

    A cut answer is shown as far as it came, though nothing in it counted.
    """
    example, samples = rollout.examples[b], rollout.samples
    row = _answers_of(rollout, b)[g]
    length, ended = int(samples.length[b, g]), bool(samples.ended[b, g])
    text = rollout.texts[row] if ended else tokenizer.decode(samples.tokens[b, g, :length])
    verdict = parse_verdict(text, example.facts.get("rules"), truncated=not ended)
    judged, applies = example.label is not None, bool(rollout.scores.applies[row])
    parts = {name: float(value[row]) for name, (value, given) in rollout.scores.parts.items()
             if given[row]}
    if rollout.shaping is not None and applies:
        parts["overlong"] = float(rollout.shaping[b, g])
    return {
        "text": clip_text(text), "ended": ended, "tokens": length,
        "logp": _finite(samples.logp[b, g, :length].sum(dtype=np.float64)),
        "outcome": str(verdict.outcome) if judged else None,
        "rules": list(verdict.rule_ids),
        "problem": str(verdict.problem) if judged and verdict.problem else None,
        "right": bool(verdict.outcome == example.label) if judged else None,
        "parts": parts, "reward": reward if applies else None,
        "centred": reward - mean if applies else None}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
