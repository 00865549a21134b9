"""Where a stage's answers come from: the model itself, or an engine beside it.

`Sampler` is all that stage `grpo` asks. `LocalSampler` is the default, and what an engine has to
agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.cache_dir import cache_dir
from guardjax.data.sources import Batch
from guardjax.rl.engine import Decoding, Engine, answer_seeds
from guardjax.rl.model_fns import encode_vision
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.train import hosts
from guardjax.train.compilation import CountedJit
from guardjax.train.config import StageConfig
from guardjax.train.features import FeatureCache
from guardjax.train.recipe import Recipe
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.trained import Program
from guardjax.train.state import Bundle
from guardjax.types import Array, Samples


class Sampler(Protocol):
    """Answers to a batch of prompts, drawn from the weights that a bundle has."""

    jits: Sequence[CountedJit]

    def sample(self, bundle: Bundle, batch: Batch, first: int) -> tuple[Samples, Array | None]:
        """Samples [B, G] on the host, and image features if they can be used for the update.

        Keys and seeds follow (step, example, completion). `first` prompts were drawn before in
        this step, from the same weights.

        Raises:
          EngineError: an engine failed; nothing has changed.
        """
        ...

    def program(self, bundle: Bundle, batch: Batch) -> Program:
        """What `sample` runs here, of `jax.ShapeDtypeStruct`s.

        Raises:
          ValueError: an engine samples elsewhere.
        """
        ...

    def close(self) -> None:
        """Called after the last step."""
        ...


class LocalSampler:
    """Samples with the stage's own functions and parameters."""

    def __init__(self, config: StageConfig, model: StageModel, recipe: Recipe) -> None:
        sampling, transform = sampling_params(config, model), model.transform(config.rl.temperature)

        def rollout(
            trained: Any, frozen: Any, prompts: Any, key: jax.Array, step: jax.Array,
            first: jax.Array, known: Any
        ) -> tuple[Any, Any]:
            params = recipe.merge(trained, frozen)
            features = encode_vision(model.fns, params, prompts, known)
            index = first + jnp.arange(prompts.size, dtype=jnp.int32)
            samples = generate(model.fns, params, prompts, _step_key(key, step), sampling,
                               transform, example_index=index, features=features)
            # Features of a tower that is trained must be encoded again, with their gradient.
            return samples, None if "visual" in trained else features

        self._rollout = CountedJit(rollout, f"{config.name}/rollout")
        self._placement, self._features = model.placement, None
        if config.feature_cache:
            about = (f"{model.cfg.vision} {model.cfg.dtype} {model.cfg.attention} "
                     f"{jax.default_backend()}")
            self._features = FeatureCache(cache_dir() / "features", model.fns.encode, about)
        self.jits = [self._rollout]

    def sample(self, bundle: Bundle, batch: Batch, first: int) -> tuple[Samples, Array | None]:
        """See `Sampler`."""
        prompts, known = batch.prompts, None
        if self._features and prompts.vision is not None:
            known = self._features.features({"visual": bundle.frozen["visual"]}, prompts.vision)
        if self._placement is not None:
            prompts, known = self._placement.put_batch((prompts, known))
        samples, features = self._rollout(*_rollout_args(bundle, prompts, first, known))
        return hosts.fetch(samples), features   # of all processes: what follows is alike on each

    def program(self, bundle: Bundle, batch: Batch) -> Program:
        """See `Sampler`."""
        return Program(self._rollout, _rollout_args(bundle, batch.prompts, 0, None))

    def close(self) -> None:
        """See `Sampler`."""


class EngineSampler:
    """Samples with an engine, which is handed the weights once a step."""

    jits: Sequence[CountedJit] = ()

    def __init__(self, engine: Engine, config: StageConfig, model: StageModel) -> None:
        self._engine, self._decoding = engine, engine_decoding(config, model)

    def sample(self, bundle: Bundle, batch: Batch, first: int) -> tuple[Samples, None]:
        """See `Sampler`."""
        step = bundle.clock.step + 1
        if first == 0:
            self._engine.load(bundle.params, step)
        index = first + jnp.arange(len(batch.examples), dtype=jnp.int32)
        key = _step_key(bundle.state.key, bundle.state.step)
        seeds = answer_seeds(key, index, self._decoding.sampling.num_samples)
        return self._engine.sample(
            batch.prompts, batch.examples, seeds, self._decoding, step), None

    def program(self, bundle: Bundle, batch: Batch) -> Program:
        """See `Sampler`."""
        raise ValueError("an engine samples: its programs are not known here; set rl.engine=local")

    def close(self) -> None:
        """See `Sampler`."""
        self._engine.close()


def sampling_params(config: StageConfig, model: StageModel) -> SamplingParams:
    """What is sampled in a stage."""
    tokenizer, rl = model.batcher.tokenizer, config.rl
    return SamplingParams(
        rl.group_size, rl.max_tokens, tokenizer.end_id, tokenizer.pad_id,
        truncation=rl.truncation, slots=rl.slots,
        stop=tuple(tuple(tokenizer.untrusted(text)) for text in rl.stop))


def engine_decoding(config: StageConfig, model: StageModel) -> Decoding:
    """The same as an engine is told."""
    return Decoding(sampling_params(config, model), config.rl.temperature, tuple(model.blocked()))


def _rollout_args(bundle: Bundle, prompts: Any, first: int, known: Any) -> tuple[Any, ...]:
    return (bundle.state.params, bundle.frozen, prompts, bundle.state.key, bundle.state.step,
            np.int32(first), known)


def _step_key(key: jax.Array, step: Array) -> jax.Array:
    return jax.random.fold_in(key, step)
