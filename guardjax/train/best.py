"""Which checkpoints are the best by a metric, so that they are kept beside the newest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from guardjax.train.config import CheckpointConfig, ConfigError
from guardjax.train.metrics import join_pairs
from guardjax.train.config import unknown_name

_policies = ocp.training.preservation_policies


class BestMetric:
    """Mean of one metric over the steps since the checkpoint before; nothing without a name.

    Checkpoints of a later stage are better than all of an earlier one: equal names there, such as
    "loss", are of different things.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self._name, self._sign = config.best_metric, 1.0 if config.best_mode == "max" else -1.0
        self._waiting: list[tuple[Any, Any]] = []

    def observe(self, metrics: Mapping[str, tuple[Any, Any]], last_stage: bool) -> None:
        """Takes one step's `name -> (sum [], count [])`; does not wait for the device.

        Raises:
          ConfigError: the last stage has no such metric. The message names the nearest.
        """
        if self._name in metrics:
            self._waiting.append(metrics[self._name])
        elif self._name and last_stage:
            raise ConfigError(unknown_name("checkpoint.best_metric", self._name, metrics))

    def of_checkpoint(self, stage: int) -> dict[str, float] | None:
        """What a checkpoint is measured by, and begins anew; None where nothing was measured."""
        pairs, self._waiting = jax.device_get(self._waiting), []
        total, count = 0.0, 0.0
        for pair in pairs:
            total, count = join_pairs(
                self._name, (total, count), (float(pair[0]), float(pair[1])), max)
        if not count or not math.isfinite(total):
            return None
        return {"stage": stage, "rank": self._sign * total / count, "value": total / count}


def preservation(config: CheckpointConfig) -> Any:
    """Orbax's policy: the newest `keep`, and with a metric the best `best_keep`."""
    newest = _policies.LatestN(config.keep)
    if not config.best_metric:
        return newest
    best = _policies.BestN(get_metric_fn=rank, n=config.best_keep,
                           keep_checkpoints_without_metrics=False)
    return _policies.AnyPreservationPolicy([newest, best])


def rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Sort key of `BestMetric.of_checkpoint`, the best last."""
    return metrics["stage"], metrics["rank"]
