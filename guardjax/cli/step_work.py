"""What a step of a run computes: tokens, and FLOPs by the model's sizes, for `time/...`.

FLOPs are those of `scale.analytic` without what is computed twice: prompts as long as they are
padded, supervised answers too, sampled ones in the rollout as long as they are on average, in the
update as long as they may be.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import guardjax.models as models
from guardjax.data.sources import Batch
from guardjax.models.config import ModelConfig
from guardjax.scale.analytic import program_flops
from guardjax.scale.peaks import peak_flops
from guardjax.scale.workload import Lengths
from guardjax.train.config import RunConfig, StageConfig
from guardjax.train.meter import Meter, Work


def make_meter(run: RunConfig, cfg: ModelConfig, num_devices: int) -> Meter:
    """The meter of a run of `cfg`, against `log.peak_flops` or the published peak."""
    peak = run.log.peak_flops or peak_flops(jax.devices()[0].device_kind)
    cfg = dataclasses.replace(cfg, attention=models.attention_backend(cfg))
    return Meter(StepWork({stage.name: stage for stage in run.stages}, cfg), peak * num_devices)


class StepWork:
    """A `WorkOf`; what it counted for a shape is kept."""

    def __init__(self, stages: Mapping[str, StageConfig], cfg: ModelConfig) -> None:
        self._stages, self._cfg = stages, cfg
        self._flops: dict[tuple[Any, ...], float] = {}

    def __call__(self, name: str, batch: Any, metrics: Mapping[str, tuple[Any, Any]]) -> Work:
        stage = self._stages[name]
        if not isinstance(batch, Batch):
            return Work(0.0)
        sampled = "rollout/tokens" in metrics
        # On the host already, as all that a rollout says of its answers is.
        answers = float(metrics["rollout/tokens"][0] if sampled else batch.length.sum())
        rounds = round(float(metrics.get("dynamic/rounds", (1.0, 1.0))[0]))
        prompts = rounds * float(np.asarray(batch.prompts.prompt.mask).sum())
        tokens = jax.process_count() * (prompts + answers)
        if stage.kind not in ("sft", "grpo"):
            return Work(tokens)
        mean = answers / float(metrics["rollout/tokens"][1]) if sampled else 0.0
        key = (name, _lengths(batch, self._cfg), math.ceil(mean), rounds)
        if key not in self._flops:
            self._flops[key] = _flops(stage, self._cfg, *key[1:])
        return Work(tokens, self._flops[key])


def _lengths(batch: Batch, cfg: ModelConfig) -> Lengths:
    """Padded lengths of a batch of pictures or words."""
    prompt, image = batch.prompts.prompt.tokens.shape[1], 0
    if batch.prompts.vision is not None:
        slots = batch.prompts.vision.patches.shape[1]
        image = min(prompt, slots // cfg.vision.spatial_merge_size**2)
    return Lengths(prompt, image, batch.tokens.shape[-1])


def _flops(stage: StageConfig, cfg: ModelConfig, lengths: Lengths, mean: int,
           rounds: int) -> float:
    """FLOPs of a step over all devices; `mean` tokens an answer that is sampled."""
    def least(program: str, stage: StageConfig = stage) -> float:
        return program_flops(f"{stage.name}/{program}", stage, cfg, lengths).least

    if stage.kind == "sft":
        return least("update")
    drawn = dataclasses.replace(stage, rl=dataclasses.replace(stage.rl, max_tokens=max(mean, 1)))
    score = least("score") if stage.rl.updates * stage.rl.micro_batches > 1 else 0.0
    return rounds * least("rollout", drawn) + score + stage.rl.updates * least("update")
