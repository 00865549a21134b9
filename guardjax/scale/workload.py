"""What is to be compiled: a stage of a run, on batches of a given shape, without an array of it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import guardjax.models as models
from guardjax.data.sources import Batch
from guardjax.models.config import ModelConfig
from guardjax.models.init import param_shapes
from guardjax.rl.model_fns import bind
from guardjax.train.batch_fit import check_stage_batch
from guardjax.train.config import RunConfig, StageConfig
from guardjax.train.sharding import Placement, check_heads
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.sft import SFTStage
from guardjax.train.stages.trained import Program
from guardjax.train.state import Bundle
from guardjax.types import PromptBatch, Segment, VisionInputs

STAGES = {"sft": SFTStage, "grpo": GRPOStage}


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Padded lengths of a batch: what buckets give in a run.

    Attributes:
      prompt: P, prompt tokens, those of images among them.
      image: U, features a prompt, of the P tokens; 0 for prompts in words only.
      answer: T, tokens of a supervised answer; sampled ones have `rl.max_tokens`.
    """

    prompt: int = 2048
    image: int = 1024
    answer: int = 512

    def __post_init__(self) -> None:
        if min(self.prompt, self.answer) < 1 or not 0 <= self.image <= self.prompt:
            raise ValueError(f"prompt={self.prompt}, image={self.image}, answer={self.answer}: "
                             "lengths must be positive, and images are part of the prompt")


@dataclasses.dataclass(frozen=True)
class _Ids:
    """Of a tokenizer, what a stage compiles in: taken from the model's config."""

    cfg: ModelConfig

    @property
    def vocab_size(self) -> int:
        return self.cfg.text.vocab_size

    @property
    def end_id(self) -> int:
        end = self.cfg.text.eos_token_id
        return (end[0] if isinstance(end, tuple) else end) or 0

    @property
    def pad_id(self) -> int:
        return self.cfg.text.pad_token_id or self.cfg.text.bos_token_id or 0

    def forbidden_ids(self) -> tuple[int, ...]:
        return (self.cfg.image_token_id, self.cfg.video_token_id)


@dataclasses.dataclass(frozen=True)
class _Batcher:
    tokenizer: _Ids


@dataclasses.dataclass(frozen=True)
class Workload:
    """One stage of a run, of a model, on a mesh that may be a description only.

    `cfg.attention` becomes the back end that it stands for on the mesh's devices.
    """

    run: RunConfig
    stage: StageConfig
    cfg: ModelConfig
    lengths: Lengths
    mesh: Mesh

    def __post_init__(self) -> None:
        if self.stage.kind not in STAGES:
            raise ValueError(f"stage {self.stage.name!r} is of kind {self.stage.kind!r}; programs "
                             f"of {', '.join(STAGES)} can be compiled ahead of time")
        check_heads(self.cfg.text.num_key_value_heads, self.mesh)
        check_stage_batch(self.stage, self.cfg.text.num_key_value_heads, self.mesh)
        with self._traced_for_mesh():
            chosen = models.attention_backend(self.cfg)
        object.__setattr__(self, "cfg", dataclasses.replace(self.cfg, attention=chosen))

    def programs(self) -> tuple[Program, ...]:
        """The programs of a step with the shapes and shardings of their arguments."""
        placement = Placement(self.mesh, self.run.mesh.rules)
        model = StageModel(self.cfg, bind(models, self.cfg), _Batcher(_Ids(self.cfg)), placement)
        rounds = self.stage.rl.dynamic_rounds
        stage = STAGES[self.stage.kind](self.stage, model, range(self.stage.steps * rounds), 0)
        start = jax.eval_shape(lambda params: _trees(stage.start(Bundle(params))),
                               param_shapes(self.cfg))
        state, frozen, ref = placement.like(start)
        bundle = Bundle(frozen=frozen, state=state, ref_params=ref)
        arrays = placement.batch_like(self._batch())
        with self._traced_for_mesh():
            return stage.programs(bundle, Batch((), *arrays))

    def _traced_for_mesh(self) -> contextlib.AbstractContextManager[None]:
        """What is traced inside is for the mesh's devices, which need not be there."""
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def _batch(self) -> tuple[PromptBatch, Any, Any]:
        """Prompts, answers and their lengths."""
        size, lengths, vision = self.stage.batch, self.lengths, self.cfg.vision
        whole = lambda *shape: jax.ShapeDtypeStruct((size, *shape), jnp.int32)
        keep = jax.ShapeDtypeStruct((size, lengths.prompt), bool)
        pictures, index = None, None
        if lengths.image:
            slots = num_slots(lengths.image, self.cfg)
            patches = jax.ShapeDtypeStruct((size, slots, vision.patch_dim), jnp.float32)
            pictures, index = VisionInputs(patches, whole(slots, 2), whole(slots)), whole(
                lengths.prompt)
        prompt = Segment(whole(lengths.prompt), whole(lengths.prompt, 3), keep, index)
        answers = whole(1, lengths.answer)
        return PromptBatch(prompt, whole(), pictures), answers, whole(1)


def num_slots(image: int, cfg: ModelConfig) -> int:
    """N: patches of `image` features, filled up to whole windows."""
    vision = cfg.vision
    return -(-image * vision.spatial_merge_size**2 // vision.window_patches
             ) * vision.window_patches


def _trees(bundle: Bundle) -> tuple[Any, Any, Any]:
    return bundle.state, bundle.frozen, bundle.ref_params
