"""A run stops when sampling and training no longer compute the same distribution.

Both call one model on one set of parameters (an engine has a copy of them), so that the
log-probabilities of sampled tokens may differ from the recomputed ones by rounding alone. A larger
mean gap says that they do not: a fault of a kernel, a cache, a device's arithmetic or an engine,
which would train on wrong ratios without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GAP = "rollout/logp_gap"    # mean over sampled tokens, nats; with MAX_SUFFIX the largest

# Largest mean. Rounding in float32 gives about 1e-7; in bfloat16 a few thousandths.
LIMITS = {"float32": 2e-5, "bfloat16": 0.02}
# An engine is another program: it sums in another order, and may multiply in less precision.
ENGINE_LIMITS = {"float32": 1e-3, "bfloat16": 0.05}


class LogpGapError(RuntimeError):
    """Sampled and recomputed log-probabilities differ by more than rounding."""

    def __init__(self, stage: str, step: int, gap: float, limit: float,
                 engine: str = "local") -> None:
        mend = ("Try attention=xla, or full precision of float32 products "
                "(JAX_DEFAULT_MATMUL_PRECISION=highest); if the gap is known and harmless, raise "
                "the limit, or weigh it away with rl.correction='token'" if engine == "local" else
                f"Start the engine {engine!r} with the precision of the run's dtype; if the gap "
                "is known and harmless, raise the limit: rl.correction weighs it away")
        super().__init__(
            f"stage {stage!r}, step {step}: sampled log-probabilities differ from the recomputed "
            f"ones by {gap:.3g} nats in the mean, above rl.logp_gap_limit={limit:g}; giving up, "
            f"the last checkpoint is kept. {mend}")
        self.step, self.gap, self.limit = step, gap, limit


class LogpGapGuard:
    """Watches the mean gap, one step behind, so that the device never waits for the host."""

    def __init__(self, stage: str, limit: float, dtype: str, engine: str = "local") -> None:
        """`limit` 0 takes that of `dtype`, by who samples: "local" or the name of an engine."""
        limits = LIMITS if engine == "local" else ENGINE_LIMITS
        self._stage, self._limit, self._engine = stage, limit or limits[dtype], engine
        self._previous: tuple[int, tuple[Any, Any]] | None = None

    def observe(self, step: int, metrics: Mapping[str, tuple[Any, Any]], *, last: bool) -> None:
        """Looks at the step before this one, and at this one too if it is the last.

        Raises:
          LogpGapError: above the limit. A gap that is not finite is none: its step was skipped.
        """
        previous, self._previous = self._previous, (step, metrics[GAP])
        self._check(previous)
        if last:
            previous, self._previous = self._previous, None
            self._check(previous)

    def _check(self, seen: tuple[int, tuple[Any, Any]] | None) -> None:
        if seen is None:
            return
        step, (total, count) = seen[0], map(float, seen[1])
        if count and total / count > self._limit:
            raise LogpGapError(self._stage, step, total / count, self._limit, self._engine)
