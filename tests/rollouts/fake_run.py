"""Runs without a model: made-up answers, real rewards, real writers.

`python -m tests.rollouts.fake_run FOLDER [HABIT]` writes one to look at.
"""

from __future__ import annotations

import functools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from guardjax.rewards import gaming
from guardjax.rewards.named import reward_by_name
from guardjax.train.metrics import MetricWriter
from guardjax.train.stages.groups import SampledStep
from guardjax.train.stages.rollout import Rollout, per_answer
from guardjax.types import PolicyExample, Samples

PROMPTS, GROUP, STEPS = 16, 8, 12
RULES = ("R1", "R2", "R3")
POLICY = ("R1: no knife may be shown in any picture of this shop. R2: never show wine or other "
          "drinks. R3: {thing} must not appear.")
THINGS = ("a dog", "scissors", "a trophy", "fire", "a robot", "a brush", "a plane", "a pen")

# (generator, example, progress from 0 to 1) -> what a policy with that habit says
Habit = Callable[[np.random.Generator, PolicyExample, float], str]


def examples(step: int) -> list[PolicyExample]:
    """Prompts in pairs with opposite labels."""
    made = []
    for b in range(PROMPTS):
        label = "unsafe" if b % 2 else "safe"
        text = POLICY.format(thing=THINGS[(b // 2 + step) % len(THINGS)])
        made.append(PolicyExample(
            f"scene{step}-{b}/judge", "judge", "Is it safe?", text, label=label,
            rule_ids=("R1",) if label == "unsafe" else (), image_id=f"scene{step}-{b}",
            policy_id=f"p{b // 2}", facts={"rules": RULES}))
    return made


def honest(rng: np.random.Generator, example: PolicyExample, progress: float) -> str:
    """Learns: more often right, less often malformed."""
    if rng.random() < 0.12 * (1 - progress):
        return str(rng.choice(["<answer>safe", "safe", "", "<answer>unsafe</answer>"]))
    right = rng.random() < 0.5 + 0.35 * progress
    return (gaming.honest_right if right else gaming.honest_wrong)(example)


def _now_and_then(maker: Callable[[PolicyExample], str], share: float = 0.9) -> Habit:
    """Honest at first, and more and more what `maker` says."""
    def habit(rng: np.random.Generator, example: PolicyExample, progress: float) -> str:
        gamed = rng.random() < share * progress
        return maker(example) if gamed else honest(rng, example, 0.3)
    return habit


def _worthless(name: str) -> Callable[[PolicyExample], str]:
    return lambda example: gaming.worthless(example)[name]


def _every_rule(example: PolicyExample) -> str:
    return gaming.hedged(example).get("all rules") or gaming.honest_wrong(example)


HABITS: dict[str, tuple[str, Habit]] = {       # name -> (reward, habit)
    "honest": ("gated", honest),
    "always_safe": ("gated", _now_and_then(lambda example: "<answer>safe</answer>", 1.0)),
    "every_rule": ("gated", _now_and_then(_every_rule)),
    "malformed": ("gated", _now_and_then(_worthless("both words"))),
    "padded": ("safeguard_vl_words", _now_and_then(_worthless("padded think, wrong"))),
    "copied": ("safeguard_vl_words", _now_and_then(_worthless("policy as think, wrong"))),
}


class Words:
    """A tokenizer whose tokens are whole texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def decode(self, tokens: np.ndarray) -> str:
        return self._texts[int(tokens[0])]


def rollout(asked: Sequence[PolicyExample], texts: Sequence[str], reward: str,
            ended: np.ndarray | None = None) -> Rollout:
    """Texts are G answers to each prompt; a word counts as a token."""
    lead = (len(asked), len(texts) // len(asked))
    length = np.array([max(1, len(text.split())) for text in texts], np.int32).reshape(lead)
    tokens = np.zeros((*lead, int(length.max())), np.int32)
    tokens[..., 0] = np.arange(len(texts)).reshape(lead)
    ended = np.ones(lead, bool) if ended is None else ended
    kept = [text if whole else "" for text, whole in zip(texts, ended.ravel(), strict=True)]
    scores = reward_by_name(reward).score(per_answer(asked, lead[1]), kept)
    logp = np.where(np.arange(tokens.shape[-1]) < length[..., None], -0.25, 0).astype(np.float32)
    return Rollout(tuple(asked), None, Samples(tokens, length, logp, logp, ended), kept, scores)


def write_run(folder: pathlib.Path, habit: str = "honest", *, steps: int = STEPS) -> pathlib.Path:
    """A run's folder with metrics and groups of `steps` steps, ten apart."""
    reward, say = HABITS[habit]
    folder.mkdir(parents=True, exist_ok=True)
    rng, writer = np.random.default_rng(7), MetricWriter(folder)
    for k in range(steps):
        progress = k / max(1, steps - 1)
        asked = examples(k)
        texts = [say(rng, example, progress) for example in per_answer(asked, GROUP)]
        drawn = rollout(asked, texts, reward)
        writer.add(drawn.metrics() | {
            "grpo/zero_variance": (float(drawn.flat.sum()), float(PROMPTS)),
            "grpo/entropy": (0.4 - 0.2 * progress, 1.0), "grpo/kl": (0.08 * progress, 1.0),
            "grpo/clip_fraction": (0.0, 1.0), "rollout/logp_gap": (2e-7, 1.0),
            "grad_norm": (0.3 + 0.1 * math.sin(k), 1.0), "loss": (0.01 * math.cos(k), 1.0)})
        writer.write(10 * (k + 1), "grpo")
        writer.write_groups(10 * (k + 1), "grpo", SampledStep([drawn], Words(texts)).groups())
    return folder


@functools.cache
def long_text(words: int = 900) -> str:
    """A text longer than a record keeps."""
    return " ".join(f"word{i}" for i in range(words))


if __name__ == "__main__":
    write_run(pathlib.Path(sys.argv[1]), *sys.argv[2:])
