"""A toy run, small enough to be compiled in a blink: a line through noise, read with grain."""

from __future__ import annotations

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from guardjax.train.checkpoint import Checkpointer
from guardjax.train.config import CheckpointConfig, LogConfig, OptimConfig
from guardjax.train.console import RunConsole, SampleRow
from guardjax.train.guard import NonFiniteGuard
from guardjax.train.loop import run_stages
from guardjax.train.metrics import MetricWriter
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.state import Bundle, init_state, merge_params, split_params
from guardjax.train.steps import make_train_step


def toy_params() -> dict[str, Any]:
    return {"visual": {"kernel": jnp.eye(4)}, "model": {"kernel": jnp.zeros((4, 2)),
                                                        "bias": jnp.zeros(2)}}


def toy_loss(params: Any, frozen: Any, batch: Any, key: jax.Array) -> Any:
    """Squared error with noise on the inputs, so that the key matters."""
    full = merge_params(params, frozen)
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    y = x @ full["visual"]["kernel"] @ full["model"]["kernel"] + full["model"]["bias"]
    count = jnp.asarray(y.shape[0], jnp.float32)
    return jnp.sum((y - batch["y"]) ** 2), count, {"error": (jnp.sum(jnp.abs(y - batch["y"])),
                                                             count)}


def toy_example(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = rng.normal(size=4).astype(np.float32)
    return {"x": x, "y": np.asarray([x[0] + index % 3, x[1]], np.float32)}


@functools.cache
def toy_step(num_steps: int) -> Any:
    """Returns (optimiser, jitted step), compiled once for all tests of a process."""
    config = OptimConfig(lr=0.05, warmup_steps=2, weight_decay=0.01)
    tx = make_optimizer(config, num_steps)
    return tx, make_train_step(toy_loss, tx, schedule=make_schedule(config, num_steps))


@dataclasses.dataclass
class ToyStage:
    """`on_step(step)` runs before every step; `spoil(step)` makes a batch of NaN."""

    name: str = "toy"
    num_steps: int = 6
    on_step: Callable[[int], None] = lambda step: None
    spoil: Callable[[int], bool] = lambda step: False
    repeats: int | None = None
    batches: list[np.ndarray] = dataclasses.field(default_factory=list)

    def init(self, bundle: Bundle) -> Bundle:
        tx, self.train_step = toy_step(self.num_steps)
        trained, frozen = split_params(bundle.frozen, ("visual",))
        data = (grain.MapDataset.range(24).seed(5).shuffle().random_map(toy_example)
                .repeat(self.repeats).batch(4)
                # No reading ahead: starting its threads costs more than all the examples.
                .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
        return bundle.replace(state=init_state(trained, tx, jax.random.key(3)), frozen=frozen,
                              data_iterator=iter(data), extra={"seen": 0})

    def step(self, bundle: Bundle, batch: Any) -> Any:
        step = bundle.clock.step
        self.on_step(step)
        self.batches.append(batch["x"])
        if self.spoil(step):
            batch = {"x": np.full_like(batch["x"], np.nan), "y": batch["y"]}
        state, metrics = self.train_step(bundle.state, bundle.frozen, batch)
        extra = {"seen": bundle.extra["seen"] + 4}
        metrics = dict(metrics) | {"seen": (extra["seen"], 1)}

        def rows() -> list[SampleRow]:
            return [SampleRow("No [red]knives[/red]\x1b[2J.", "none seen", "safe",
                              {"correct": 1.0, "step": float(step)})]

        return bundle.replace(state=state, extra=extra), metrics, rows

    def finish(self, bundle: Bundle) -> Bundle:
        return bundle.finished()


@dataclasses.dataclass
class Toy:
    """Starts runs of toy stages in one folder, each with objects of its own."""

    folder: pathlib.Path
    stage: type[ToyStage] = ToyStage
    params: Callable[[], dict[str, Any]] = staticmethod(toy_params)
    loss: Callable[..., Any] = staticmethod(toy_loss)
    output: str = ""

    def run(self, stages: list[ToyStage], *, every: int = 2, keep: int = 2, log_every: int = 1,
            max_bad: int = 3, folder: pathlib.Path | None = None) -> Bundle:
        folder = folder or self.folder
        out = io.StringIO()
        console = RunConsole(log_every, rich.console.Console(file=out, width=120))
        try:
            with Checkpointer(folder, CheckpointConfig(every_steps=every, keep=keep)) as saver:
                return run_stages(
                    stages, Bundle(frozen=toy_params()), checkpointer=saver,
                    writer=MetricWriter(folder), console=console,
                    guard=NonFiniteGuard(max_bad, saver.dump),
                    log=LogConfig(every_steps=log_every, table_every_steps=3))
        finally:
            self.output = out.getvalue()


@pytest.fixture(scope="session")
def toy_of() -> Callable[[pathlib.Path], Toy]:
    return Toy


@pytest.fixture
def toy(tmp_path: pathlib.Path) -> Toy:
    return Toy(tmp_path)
