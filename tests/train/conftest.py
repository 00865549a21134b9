"""Runs that are small enough for a unit test.

`toy` is a line through noise, compiled in a blink. `small_guard` is the real architecture with one
layer of each kind and the base's tokenizer, for the real stages.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from guardjax import models
from guardjax.cli.compose import model_dir
from guardjax.data.batching import load_batcher
from guardjax.data.sources import Batch
from guardjax.models.tiny import tiny_config
from guardjax.rl.model_fns import bind
from guardjax.train.checkpoint import Checkpointer
from guardjax.train.config import CheckpointConfig, LogConfig, OptimConfig, StageConfig
from guardjax.train.console import RunConsole, SampleRow
from guardjax.train.guard import NonFiniteGuard
from guardjax.train.loop import run_stages
from guardjax.train.metrics import MetricWriter
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.sharding import on_one_device
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle, init_state, merge_params, split_params
from guardjax.train.steps import make_train_step
from guardjax.types import PolicyExample


def toy_params() -> dict[str, Any]:
    return on_one_device({"visual": {"kernel": jnp.eye(4)},
                          "model": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}})


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


@dataclasses.dataclass(frozen=True)
class ToyShown:
    step: int

    def table(self) -> list[SampleRow]:
        return [SampleRow("No [red]knives[/red]\x1b[2J.", "none seen", "safe",
                          {"correct": 1.0, "step": float(self.step)})]

    def groups(self) -> list[dict[str, Any]]:
        return [{"prompt": prompt, "mean": self.step / 3} for prompt in range(2)]


@dataclasses.dataclass
class ToyStage:
    """`on_step(step)` runs before every step; `spoil(step)` makes a batch of NaN."""

    name: str = "toy"
    num_steps: int = 6
    updates: int = 1
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
        state = on_one_device(init_state(trained, tx, jax.random.key(3)))
        return bundle.replace(state=state, frozen=frozen, data_iterator=iter(data),
                              extra={"seen": 0})

    def step(self, bundle: Bundle, batch: Any) -> Any:
        step = bundle.clock.step
        self.on_step(step)
        self.batches.append(batch["x"])
        if self.spoil(step):
            batch = {"x": np.full_like(batch["x"], np.nan), "y": batch["y"]}
        state, metrics = self.train_step(bundle.state, bundle.frozen, batch)
        extra = {"seen": bundle.extra["seen"] + 4}
        metrics = dict(metrics) | {"seen": (extra["seen"], 1)}

        return bundle.replace(state=state, extra=extra), metrics, ToyShown(step)

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
            max_bad: int = 3, folder: pathlib.Path | None = None,
            start: list[Bundle] | None = None) -> Bundle:
        folder = folder or self.folder
        out = io.StringIO()
        console = RunConsole(log_every, rich.console.Console(file=out, width=120))
        try:
            with Checkpointer(folder, CheckpointConfig(every_steps=every, keep=keep)) as saver:
                return run_stages(
                    stages, start.pop() if start else Bundle(frozen=toy_params()),
                    checkpointer=saver,
                    writer=MetricWriter(folder), console=console,
                    guard=NonFiniteGuard(max_bad, saver.dump),
                    log=LogConfig(every_steps=log_every, table_every_steps=3,
                                  groups_every_steps=2))
        finally:
            self.output = out.getvalue()


@pytest.fixture(scope="session")
def toy_of() -> Callable[[pathlib.Path], Toy]:
    return Toy


@pytest.fixture
def toy(tmp_path: pathlib.Path) -> Toy:
    return Toy(tmp_path)


@dataclasses.dataclass
class ReadSource:
    """Batches of judged prompts in words; those in `pictures` show a picture instead.

    `flat(index, row)` marks prompts for rewards that look at `facts["flat"]`.
    """

    batcher: Any
    num: int
    batch: int = 4
    pictures: tuple[int, ...] = ()
    flat: Callable[[int, int], bool] = lambda index, row: False

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Batch:
        examples = tuple(self._example(int(index), row) for row in range(self.batch))
        tokens, length = self.batcher.answers([[e.answer] for e in examples])
        return Batch(examples, self.batcher.prompts(examples), tokens, length)

    def _example(self, index: int, row: int) -> PolicyExample:
        label = ("safe", "unsafe")[(index + row) % 2]
        image = None
        if index in self.pictures:
            image = np.random.default_rng((index, row)).integers(0, 256, (64, 64, 3), np.uint8)
        return PolicyExample(
            f"{index}/{row}", "judge", "safe?", f"R{row}: no knife.", image,
            answer="unsafe" if label == "unsafe" else "safe", label=label,
            facts={"rules": (f"R{row}",), "flat": self.flat(index, row)})


@dataclasses.dataclass
class Interrupted:
    """A stage that something stops before one of its steps."""

    stage: Any
    at: int
    error: type[BaseException]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def step(self, bundle: Bundle, batch: Any) -> Any:
        if bundle.clock.step == self.at:
            raise self.error
        return self.stage.step(bundle, batch)


@dataclasses.dataclass
class SmallGuard:
    """One layer of each kind, width 32."""

    model: StageModel
    params: Any
    source: Callable[..., ReadSource]
    interrupted: type[Interrupted] = Interrupted

    def config(self, kind: str, steps: int, **changes: Any) -> StageConfig:
        optim = OptimConfig(lr=0.02, schedule="constant")
        return StageConfig(kind=kind, steps=steps, batch=4, optim=optim, **changes)

    def run(self, stages: list[Any], folder: pathlib.Path, every: int = 2,
            max_bad: int = 3) -> Bundle:
        with Checkpointer(folder, CheckpointConfig(every_steps=every)) as saver:
            return run_stages(
                stages, Bundle(frozen=self.params), checkpointer=saver,
                writer=MetricWriter(folder), console=RunConsole(enabled=False),
                guard=NonFiniteGuard(max_bad, saver.dump), log=LogConfig(every_steps=1))


@pytest.fixture(scope="session")
def small_guard() -> SmallGuard:
    batcher = load_batcher(model_dir("base"))
    first = batcher.tokenizer.pad_id
    cfg = tiny_config(-(-batcher.tokenizer.vocab_size // 64) * 64, first_special_id=first)
    text = dataclasses.replace(
        cfg.text, num_hidden_layers=1, hidden_size=32, intermediate_size=48,
        num_attention_heads=2, num_key_value_heads=1, mrope_section=(2, 3, 3))
    vision = dataclasses.replace(
        cfg.vision, depth=1, hidden_size=32, intermediate_size=48, fullatt_block_indexes=(0,),
        out_hidden_size=32)
    cfg = dataclasses.replace(cfg, text=text, vision=vision)
    model = StageModel(cfg, bind(models, cfg), batcher)
    return SmallGuard(model, on_one_device(models.init_params(cfg, jax.random.key(0))),
                      functools.partial(ReadSource, batcher))


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile fast and run slowly: for programs that are small and run a few times."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
