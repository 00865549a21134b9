"""One update: state in, state out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from guardjax.train.compilation import CountedJit
from guardjax.train.metrics import join_pairs
from guardjax.train.parts import split_parts
from guardjax.train.sharding import Placement
from guardjax.train.state import Params, TrainState

Sums = Mapping[str, tuple[jax.Array, jax.Array]]
LossFn = Callable[[Params, Params, Any, jax.Array], tuple[jax.Array, jax.Array, Sums]]


def make_train_step(loss_fn: LossFn, tx: optax.GradientTransformation, *, name: str = "train_step",
                    schedule: optax.Schedule | None = None, micro_batches: int = 1,
                    placement: Placement | None = None) -> CountedJit:
    """Returns the jitted `(state, frozen, batch) -> (state, metrics)`; `state` is donated.

    `loss_fn(params, frozen, batch, key)` returns `(loss_sum [], count [], metrics)`; the loss is
    `loss_sum / count`, over the whole batch, so that no mean of means is ever taken. `metrics`,
    here and in the result, are `name -> (sum [], count [])`, or maxima (`metrics.join_pairs`).
    Added are "loss" and "grad_norm" (before clipping; both without the steps that were skipped),
    "skipped", "empty", and with a `schedule` "lr".

    A step whose loss or gradient is not finite leaves parameters and optimiser as they are and
    counts in `state.skipped`; a batch with `count == 0` leaves them too, but is no fault.
    With `micro_batches` > 1 the batch, whose leaves must all lead with B, goes through the loss in
    so many parts of whole prompts, one after another; sums and gradients are added and divided by
    the whole count, so that the update is the same but for rounding. `loss_fn` then sees one part,
    and must not look beyond a prompt.

    `placement` holds gradients and the new state where its rules say.
    """
    pin = (lambda tree: tree) if placement is None else placement.pin

    def train_step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)

        def mean_loss(params: Params) -> tuple[jax.Array, tuple[jax.Array, Sums]]:
            loss_sum, count, metrics = loss_fn(params, frozen, batch, key)
            count = jnp.asarray(count, jnp.float32)
            return loss_sum / jnp.where(count > 0, count, 1.0), (count, metrics)

        if micro_batches == 1:
            (loss, (count, metrics)), grads = jax.value_and_grad(
                mean_loss, has_aux=True)(state.params)
        else:
            parts = split_parts(batch, micro_batches)
            loss, count, metrics, grads = _accumulate(loss_fn, state.params, frozen, parts, key)
        grads = pin(grads)
        grad_norm = optax.tree.norm(grads)
        # The norm is finite only if every entry is; a norm that overflows is as bad.
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        learns = finite & (count > 0)
        new_state = _advance(state, grads, tx, finite, learns)
        new_state = new_state.replace(
            params=pin(new_state.params), opt_state=pin(new_state.opt_state))
        bad = (~finite).astype(jnp.float32)
        one = jnp.ones((), jnp.float32)
        metrics = {key: _where_finite(finite, pair) for key, pair in metrics.items()}
        metrics |= {
            "loss": _where_finite(finite, (loss * count, count)),
            "grad_norm": _where_finite(finite, (grad_norm, one)),
            "skipped": (bad, one),
            "empty": ((finite & ~learns).astype(jnp.float32), one),
        }
        if schedule is not None:
            metrics["lr"] = (jnp.asarray(schedule(state.updates), jnp.float32), one)
        return new_state, metrics

    return CountedJit(train_step, name, donate_argnums=0)


def _accumulate(loss_fn: LossFn, params: Params, frozen: Params, parts: Any, key: jax.Array
                ) -> tuple[jax.Array, jax.Array, Sums, Params]:
    """(mean loss, count, metrics, its gradient) over `parts`, leaves [n, B / n, ...]."""
    def of_part(index: jax.Array, part: Any) -> Any:
        def loss_sum(params: Params) -> tuple[jax.Array, tuple[jax.Array, Sums]]:
            total, count, metrics = loss_fn(params, frozen, part, jax.random.fold_in(key, index))
            floats = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (count, metrics))
            return total, floats

        (total, (count, metrics)), grads = jax.value_and_grad(loss_sum, has_aux=True)(params)
        return total, count, metrics, grads

    num = jax.tree.leaves(parts)[0].shape[0]
    first = jax.eval_shape(of_part, jnp.int32(0), jax.tree.map(lambda leaf: leaf[0], parts))

    def add(sums: Any, each: Any) -> tuple[Any, None]:
        total, count, metrics, grads = of_part(*each)
        joined = {name: join_pairs(name, sums[2][name], pair) for name, pair in metrics.items()}
        return (sums[0] + total, sums[1] + count, joined,
                jax.tree.map(jnp.add, sums[3], grads)), None

    total, count, metrics, grads = jax.lax.scan(
        add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first),
        (jnp.arange(num, dtype=jnp.int32), parts))[0]
    divisor = jnp.where(count > 0, count, 1.0)
    return total / divisor, count, metrics, jax.tree.map(lambda leaf: leaf / divisor, grads)


def _advance(state: TrainState, grads: Params, tx: optax.GradientTransformation,
             finite: jax.Array, learns: jax.Array) -> TrainState:
    # NaN times zero is NaN, so select whole results, never scale an update by a flag.
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(lambda new, old: jnp.where(learns, new, old),
                                     (params, opt_state), (state.params, state.opt_state))
    bad = (~finite).astype(jnp.int32)
    return state.replace(
        step=state.step + 1, params=params, opt_state=opt_state,
        updates=state.updates + learns.astype(jnp.int32), skipped=state.skipped + bad,
        bad_streak=(state.bad_streak + bad) * bad)


def _where_finite(finite: jax.Array, pair: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    """Keeps a skipped step out of the window's sums, where one NaN would hide all others."""
    return tuple(jnp.where(finite, jnp.asarray(part, jnp.float32), 0.0) for part in pair)
