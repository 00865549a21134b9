"""A small guard in a model folder, which a fake engine serves."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from guardjax import models
from guardjax.data.batching import load_batcher, save_batcher
from guardjax.engines.remote import Limits, RemoteEngine, connect
from guardjax.engines.weights import WeightFolder
from guardjax.rl.engine import Decoding
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.train.stages.model import StageModel
from guardjax.types import PolicyExample, PromptBatch, Samples
from tests.train.conftest import SmallGuard, quick_compilation, small_guard  # noqa: F401

GROUP, TOKENS = 2, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """The guard, its folder, and three prompts: in words, with a picture, with a larger one."""

    guard: SmallGuard
    folder: pathlib.Path

    @property
    def model(self) -> StageModel:
        return self.guard.model

    @functools.cache
    def params(self, seed: int = 1) -> Any:
        """Weights of which the most likely answers differ from prompt to prompt."""
        leaves, tree = jax.tree.flatten(self.guard.params)
        rng = np.random.default_rng(seed)
        return jax.tree.unflatten(tree, [
            leaf + np.float32(0.6) * rng.normal(size=leaf.shape).astype(np.float32)
            for leaf in leaves])

    @functools.cached_property
    def examples(self) -> tuple[PolicyExample, ...]:
        rng = np.random.default_rng(5)
        images = (None, rng.integers(0, 256, (64, 64, 3), np.uint8),
                  rng.integers(0, 256, (128, 128, 3), np.uint8))
        return tuple(PolicyExample(f"e{i}", "judge", "safe?", f"R{i}: no knife, no gun.", image)
                     for i, image in enumerate(images))

    @functools.cached_property
    def prompts(self) -> PromptBatch:
        return self.model.batcher.prompts(self.examples)

    def decoding(self, greedy: bool = True, temperature: float = 1.0, **more: Any) -> Decoding:
        tokenizer = self.model.batcher.tokenizer
        return Decoding(
            SamplingParams(GROUP, TOKENS, tokenizer.end_id, tokenizer.pad_id, greedy=greedy,
                           **more),
            temperature, tuple(self.model.blocked()))

    def connect(self, kind: str, url: str, out: pathlib.Path, **limits: Any) -> RemoteEngine:
        limits = {"seconds": 120.0, "retry_seconds": 1.0, "requests": 4} | limits
        return connect(kind, url, weights=WeightFolder(out / "engine", self.model.cfg),
                       batcher=self.model.batcher, decoding=self.decoding(),
                       limits=Limits(**limits))

    def local(self, params: Any) -> Samples:
        """The most likely answers by the local sampler."""
        decoding = self.decoding()
        rollout = jax.jit(lambda params, prompts: generate(
            self.model.fns, params, prompts, jax.random.key(0), decoding.sampling,
            self.model.transform()))
        return jax.device_get(rollout(params, self.prompts))


@pytest.fixture(scope="session")
def served(small_guard: SmallGuard, tmp_path_factory: Any) -> Served:  # noqa: F811
    folder = tmp_path_factory.mktemp("base") / "model"
    found = Served(small_guard, folder)
    models.save_hf(found.params(), small_guard.model.cfg, folder)
    save_batcher(small_guard.model.batcher, folder)
    assert load_batcher(folder).window_units == small_guard.model.batcher.window_units
    return found


@pytest.fixture
def seeds() -> np.ndarray:
    """[3, GROUP], all different."""
    return np.arange(3 * GROUP).reshape(3, GROUP) + 100
