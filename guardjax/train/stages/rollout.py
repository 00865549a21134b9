"""Sampled answers to a batch of prompts with their rewards, and what the log says of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from guardjax.policies import parse_verdict
from guardjax.rewards.compose import Scores
from guardjax.rl.advantages import zero_variance
from guardjax.train.console import SampleRow
from guardjax.types import Array, PolicyExample, Samples

_TABLE_ROWS = 6


@dataclasses.dataclass(frozen=True)
class Rollout:
    """G answers to each of B prompts. Everything but `features` is on the host."""

    examples: tuple[PolicyExample, ...]     # B
    features: Array | None                  # [B, U, D], None where the tower is trained
    samples: Samples                        # lead [B, G]
    texts: Sequence[str]                    # answer b * G + g; "" where the limit cut it
    scores: Scores                          # of the texts
    shaping: np.ndarray | None = None       # [B, G], added to the rewards that are learnt from
    finite: bool = True                     # False: a reward was NaN or infinite; nothing is learnt

    def answers(self) -> dict[str, np.ndarray]:
        """What an update needs of the answers, each with lead [B, G]."""
        lead = self.samples.length.shape
        rewards = self.scores.value.reshape(lead).astype(np.float32)
        if self.shaping is not None:
            rewards = rewards + self.shaping.astype(np.float32)
        valid = self.scores.applies.reshape(lead)
        if not self.finite:     # a loss of NaN is skipped and counted by the update
            rewards, valid = np.full_like(rewards, np.nan), np.ones_like(valid)
        return {
            "tokens": self.samples.tokens, "length": self.samples.length,
            "ended": self.samples.ended, "sampled_logp": self.samples.logp,
            "model_logp": self.samples.model_logp, "rewards": rewards,
            "valid": valid, "anchor": self.anchor,
        }

    @property
    def anchor(self) -> np.ndarray:
        """[B] bool, True where a prompt has no label: its answers are held to the reference."""
        return np.array([not example.label for example in self.examples])

    @functools.cached_property
    def flat(self) -> np.ndarray:
        """[B] bool, True where a prompt's rewards are all equal: it has no gradient."""
        answers = self.answers()
        return np.asarray(zero_variance(answers["rewards"], answers["valid"]))

    def metrics(self) -> dict[str, tuple[float, float]]:
        """(sum, count) of every reward part, and what the answers look like."""
        judged = [(e, parse_verdict(text, e.facts.get("rules")))
                  for e, text in zip(self._rows(), self.texts, strict=True) if e.label]
        verdicts, num = [verdict for _, verdict in judged], float(len(judged))
        right = sum(verdict.outcome == e.label for e, verdict in judged)
        shaping = {}
        if self.shaping is not None:
            applies = self.scores.applies
            shaping["reward/overlong"] = (
                float(self.shaping.reshape(-1)[applies].sum()), float(applies.sum()))
        # What the model gives to the tokens that could be sampled at all, 1 without truncation.
        kept = np.exp(self.samples.model_logp - self.samples.logp)
        sampled = np.arange(kept.shape[-1]) < self.samples.length[..., None]
        return {f"reward/{name}": pair for name, pair in self.scores.sums().items()} | shaping | {
            "reward/nonfinite": (float(not self.finite), 1.0),
            "rollout/right": (float(right), num),
            "rollout/unsafe": (float(sum(v.outcome == "unsafe" for v in verdicts)), num),
            "rollout/invalid": (float(sum(v.problem is not None for v in verdicts)), num),
            "rollout/truncated": (float((~self.samples.ended).sum()), float(len(self.texts))),
            "rollout/kept_mass": (float(kept[sampled].sum()), float(sampled.sum())),
            "rollout/tokens": (float(self.samples.length.sum()), float(len(self.texts))),
        }

    def table(self) -> list[SampleRow]:
        """One answer each of the first few prompts."""
        rows, group = [], self.samples.length.shape[1]
        for b, example in enumerate(self.examples[:_TABLE_ROWS]):
            text = self.texts[b * group]
            verdict = parse_verdict(text, example.facts.get("rules"))
            parts = {name: float(value[b * group])
                     for name, (value, applies) in self.scores.parts.items() if applies[b * group]}
            rows.append(SampleRow(
                policy=example.policy_text or example.question, rationale=verdict.rationale or "",
                verdict=f"{text} (gold: {example.label or example.answer})", reward=parts))
        return rows

    def _rows(self) -> list[PolicyExample]:
        return per_answer(self.examples, self.samples.length.shape[1])


def per_answer(examples: Sequence[PolicyExample], group: int) -> list[PolicyExample]:
    """Each example `group` times, row b * G + g."""
    return [example for example in examples for _ in range(group)]


def decode_answers(samples: Samples, tokenizer: Any) -> list[str]:
    """Texts of samples with lead [B, G] on the host, row b * G + g; "" for one the limit cut."""
    flat = zip(samples.tokens.reshape(-1, samples.tokens.shape[-1]),
               samples.length.reshape(-1), samples.ended.reshape(-1), strict=True)
    return [tokenizer.decode(row[:n]) if ended else "" for row, n, ended in flat]
