"""What a run carries from step to step, and the split into trained and frozen parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from guardjax.train.config import unknown_name

Params = Mapping[str, Any]


def split_params(params: Params, freeze: Sequence[str]) -> tuple[Params, Params]:
    """Returns (trained, frozen); `freeze` names groups: "visual", or deeper "visual/merger".

    Raises:
      ValueError: if a name is no group of `params`, or nothing is left to train.
    """
    for name in freeze:
        group: Any = params
        for part in name.split("/"):
            if not isinstance(group, Mapping) or part not in group:
                valid = group if isinstance(group, Mapping) else ()
                raise ValueError(unknown_name("parameter group in freeze", name, valid))
            group = group[part]
    trained, frozen = partition_params(
        params, lambda path: not any((path + "/").startswith(name + "/") for name in freeze))
    if not trained:
        raise ValueError(f"freeze={tuple(freeze)} leaves no parameter to train")
    return trained, frozen


def partition_params(params: Params, is_trained: Callable[[str], bool],
                     ) -> tuple[Params, Params]:
    """Returns (trained, frozen) by a predicate on the leaf's path, such as "visual/norm/scale"."""
    trained: dict[str, Any] = {}
    frozen: dict[str, Any] = {}

    def visit(tree: Params, path: str, one: dict[str, Any], other: dict[str, Any]) -> None:
        for key, value in tree.items():
            here = f"{path}/{key}" if path else key
            if isinstance(value, Mapping):
                parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
                visit(value, here, *parts)
                for side, part in zip((one, other), parts, strict=True):
                    if part:
                        side[key] = part
            else:
                (one if is_trained(here) else other)[key] = value

    visit(params, "", trained, frozen)
    return trained, frozen


def merge_params(trained: Params, frozen: Params) -> Params:
    """Returns the union of two disjoint trees; works on tracers.

    Raises:
      ValueError: if a leaf is in both.
    """
    merged = dict(frozen)
    for key, value in trained.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = merge_params(value, merged[key])
        else:
            raise ValueError(f"parameter {key!r} is both trained and frozen")
    return merged


@flax.struct.dataclass
class TrainState:
    """Everything on the device that a training step changes; donated to it and returned.

    `step = updates + skipped + steps whose batch held nothing to learn from`.
    """

    step: jax.Array         # [] int32, steps taken in this stage
    params: Params          # the trained part only
    opt_state: Any
    key: jax.Array          # [] typed PRNG key; a step uses `fold_in(key, step)`
    updates: jax.Array      # [] int32, steps that changed the parameters
    skipped: jax.Array      # [] int32, steps left out because loss or gradient was not finite
    bad_streak: jax.Array   # [] int32, how many of the latest steps were left out in a row


@dataclasses.dataclass(frozen=True)
class Clock:
    """Where a run stands."""

    stage: int = 0          # index of the stage
    step: int = 0           # steps done in this stage
    total: int = 0          # steps done in all stages; numbers checkpoints and metrics
    seconds: float = 0.0    # wall time of the steps, over restarts, with saves and logs

    def tick(self, seconds: float) -> Clock:
        """Returns the clock one step later."""
        return dataclasses.replace(self, step=self.step + 1, total=self.total + 1,
                                   seconds=self.seconds + seconds)

    def next_stage(self) -> Clock:
        """Returns the clock at the start of the next stage."""
        return dataclasses.replace(self, stage=self.stage + 1, step=0)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What one stage hands to the next, and what the loop threads through the steps.

    Between stages `state` is None and `frozen` holds all parameters. During a stage the trained
    part lives in `state`, and `merge(state.params, frozen)` makes ordinary weights of both;
    `frozen` and `ref_params` are never donated. `data_iterator` is a grain iterator (anything that
    Orbax can save as a stateful checkpointable) or None. `extra` is the stage's own host state,
    JSON only; it is saved with every checkpoint.
    """

    frozen: Params
    state: TrainState | None = None
    ref_params: Params | None = None
    merge: Callable[[Params, Params], Params] = merge_params
    data_iterator: Any = None
    clock: Clock = Clock()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> Params:
        """All parameters, as ordinary weights."""
        return self.frozen if self.state is None else self.merge(self.state.params, self.frozen)

    def replace(self, **changes: Any) -> Bundle:
        """Returns a bundle with some fields changed."""
        return dataclasses.replace(self, **changes)

    def finished(self) -> Bundle:
        """Returns the bundle as the next stage starts from it: all parameters, nothing else."""
        return Bundle(frozen=self.params, clock=self.clock)


def init_state(params: Params, tx: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """Returns the state before the first step; `params` is copied, since steps donate it."""
    params = jax.tree.map(jnp.copy, params)
    zero = jnp.zeros((), jnp.int32)
    # One buffer each: a buffer that appears twice in a donated argument is an error.
    return TrainState(step=zero, params=params, opt_state=tx.init(params), key=jnp.copy(key),
                      updates=jnp.copy(zero), skipped=jnp.copy(zero), bad_streak=jnp.copy(zero))
