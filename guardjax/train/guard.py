"""Giving up in time: a run whose steps are all skipped must stop, with its state kept."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from guardjax.train.state import Bundle


class Stage(Protocol):
    """What the guard asks of a stage."""

    name: str
    updates: int        # optimiser updates a step


class NonFiniteError(RuntimeError):
    """Too many updates in a row had a loss or gradient that was not finite."""

    def __init__(self, stage: str, step: int, count: int, saved_at: pathlib.Path) -> None:
        super().__init__(
            f"stage {stage!r}, step {step}: the last {count} updates had a loss, gradient or "
            "reward that was not finite and were skipped; giving up. The parameters are those of "
            f"the last good step; the state was saved in {saved_at}. Try a lower learning rate, a "
            "smaller clip_norm or a longer warm-up, and look at the batches of these steps.")
        self.step = step
        self.count = count
        self.saved_at = saved_at


class NonFiniteGuard:
    """Watches `state.bad_streak`, one step behind, so that the device never waits for the host."""

    def __init__(self, max_bad_steps: int, dump: Callable[[Bundle], pathlib.Path]) -> None:
        self._limit = max_bad_steps     # of updates, times those of a step
        self._dump = dump
        self._previous: jax.Array | None = None

    def observe(self, stage: Stage, bundle: Bundle) -> None:
        """Looks at the streak as it was after the step before this one.

        Raises:
          NonFiniteError: if it reached the limit; the bundle is dumped first.
        """
        if bundle.state is None:
            return
        # Copied, because the next step is given the state's own buffers.
        previous, self._previous = self._previous, jnp.copy(bundle.state.bad_streak)
        if previous is not None:
            self._check(stage, bundle, int(previous))

    def settle(self, stage: Stage, bundle: Bundle) -> None:
        """Looks at the streak as it is now, before a save or the end of a stage.

        Raises:
          NonFiniteError: as `observe`.
        """
        self._previous = None
        if bundle.state is not None:
            self._check(stage, bundle, int(bundle.state.bad_streak))

    def _check(self, stage: Stage, bundle: Bundle, streak: int) -> None:
        if streak >= self._limit * stage.updates:
            raise NonFiniteError(stage.name, bundle.clock.total, streak, self._dump(bundle))
