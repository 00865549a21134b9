"""What the record of rollouts and their page cost: bytes on disk, and CPU time at a run's end.

    python benchmarks/rollouts.py

Groups of made-up answers are written as a GRPO step writes them: short verdicts, and answers at the
length where they are clipped. `curves` is what `guardjax train` adds after its last step, imports
included: metrics of 100 windows drawn and saved, in seconds of CPU time, so that other work on the
machine counts for little. Prints a line a measurement: name, value, unit, bar, ok.
"""

from __future__ import annotations

import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from bars import Line, report

from guardjax.rewards.named import reward_by_name
from guardjax.train.metrics import GROUPS_FILE, MetricWriter
from guardjax.train.stages.groups import STEP_BYTES, TEXT_CHARS, SampledStep
from guardjax.train.stages.rollout import Rollout, per_answer
from guardjax.types import PolicyExample, Samples

PROMPTS, GROUP, TOKENS = 32, 8, 12
WINDOWS, GROUPS_SHOWN = 100, 400
CURVE_SECONDS, PAGE_MB = 2.0, 2.0
POLICY = "R1: never show brush in bright light. R2: do not show scissors or brush."
SHORT = ("<answer>safe</answer>", "<answer>unsafe: R1</answer>", "<answer>unsafe: R1, R2</answer>")
LONG = tuple(f"<think>{'word ' * (TEXT_CHARS // 5)}{i}</think>{answer}"
             for i, answer in enumerate(SHORT))
METRICS = ("reward/verdict", "rollout/right", "rollout/unsafe", "rollout/invalid", "grpo/kl",
           "rollout/truncated", "rollout/tokens", "grpo/zero_variance", "grpo/entropy",
           "grpo/clip_fraction", "grad_norm", "rollout/logp_gap", "loss")


class Texts:
    """Stands for the tokenizer, which only cut answers need: here none is."""


def sampled(answers: Sequence[str], rng: np.random.Generator) -> SampledStep:
    """A step of 32 prompts, with 8 of these answers to each."""
    asked = tuple(PolicyExample(
        f"scene{b}/judge", "judge", "Does the picture break the policy?", POLICY,
        label="unsafe" if b % 2 else "safe", rule_ids=("R1",) if b % 2 else (),
        image_id=f"scene{b}", facts={"rules": ("R1", "R2")}) for b in range(PROMPTS))
    texts = [str(text) for text in rng.choice(answers, PROMPTS * GROUP)]
    scores = reward_by_name("gated").score(per_answer(asked, GROUP), texts)
    lead = (PROMPTS, GROUP)
    logp = rng.normal(-1, 0.3, (*lead, TOKENS)).astype(np.float32)
    samples = Samples(np.zeros((*lead, TOKENS), np.int32), np.full(lead, TOKENS, np.int32), logp,
                      logp, np.ones(lead, bool))
    return SampledStep([Rollout(asked, None, samples, texts, scores)], Texts())


def write_steps(folder: pathlib.Path, answers: Sequence[str], steps: int) -> float:
    """Writes a run's logs; returns bytes of groups a step."""
    rng, writer = np.random.default_rng(0), MetricWriter(folder)
    for step in range(1, steps + 1):
        writer.add({name: (1 + math.sin(step + k), 2.0) for k, name in enumerate(METRICS)})
        writer.write(step, "grpo")
        writer.write_groups(step, "grpo", sampled(answers, rng).groups())
    return (folder / GROUPS_FILE).stat().st_size / steps


def measurements() -> Iterator[Line]:
    """Of the files that a run writes, then of what is made of them."""
    with tempfile.TemporaryDirectory() as name:
        short, long = (pathlib.Path(name) / kind for kind in ("short", "long"))
        for folder in (short, long):
            folder.mkdir()
        yield Line("rollouts/short_answers", write_steps(short, SHORT, WINDOWS) / 1024,
                   "KiB_a_step", most=STEP_BYTES / 1024)
        yield Line("rollouts/long_answers", write_steps(long, LONG, 4) / 1024, "KiB_a_step",
                   most=STEP_BYTES / 1024)
        started = time.process_time()
        from guardjax.rollouts.curves import save_curves
        from guardjax.rollouts.run_log import read_run, read_windows
        curves = save_curves(short, read_windows(short))
        yield Line("rollouts/curves", time.process_time() - started, "CPU_seconds",
                   most=CURVE_SECONDS)
        from guardjax.rollouts.page import render_page
        from guardjax.rollouts.signs import find_signs
        started = time.process_time()
        run = read_run(short)
        page = render_page(run, find_signs(run), curves, groups=GROUPS_SHOWN)
        seconds = time.process_time() - started
        yield Line("rollouts/page", len(page.encode()) / 1e6, "MB", most=PAGE_MB)
        yield Line("rollouts/page_of_800_groups", seconds, "CPU_seconds", most=5.0)


def main() -> int:
    """Runs the benchmark; returns 1 above a bar."""
    return report(measurements())


if __name__ == "__main__":
    sys.exit(main())
