"""FLOPs that a stage's programs need, from the model's sizes alone: a check on what is compiled.

A product of [m, k] with [k, n] is 2 m k n. Counted are products with weights and products of
attention. A gradient costs two products for each one forward: one for what it came from, one for
the other factor, which is left out where that is a frozen weight.

Of splash attention whole blocks are counted: those in which anything is seen. Its gradient costs
more than the two products, since scores are computed again for queries and for keys.
"""

from __future__ import annotations

import dataclasses

import jax

from guardjax.models.attention.blocks import fill_up, num_scores
from guardjax.models.attention.tree import Run, SegmentTree
from guardjax.models.config import ModelConfig
from guardjax.models.init import param_shapes
from guardjax.rl.logprobs import PLAIN_BYTES
from guardjax.scale.kernels import PRODUCTS
from guardjax.scale.workload import Lengths, num_slots
from guardjax.train.config import StageConfig
from guardjax.train.recipe import make_recipe


@dataclasses.dataclass(frozen=True)
class Floor:
    """FLOPs over all chips: of the program as it is, and without what it computes twice."""

    flops: float
    least: float


def program_flops(name: str, stage: StageConfig, cfg: ModelConfig, lengths: Lengths) -> Floor:
    """FLOPs of a program of `stage`, all answers as long as they may be.

    Args:
      name: that of the program: ".../rollout", ".../score", and anything else is an update.
    """
    part = name.rsplit("/", 1)[-1]
    if part == "rollout":
        flops = _rollout(stage, cfg, lengths)
        return Floor(flops, flops)
    group, answer = (stage.rl.group_size, stage.rl.max_tokens) if stage.kind == "grpo" else (
        1, lengths.answer)
    batch, parts = stage.batch, stage.rl.micro_batches
    if part == "score":
        parts *= stage.rl.minibatches
    else:
        batch //= stage.rl.minibatches
    forward = _Pass(cfg, batch, group, lengths.prompt, answer, parts)
    tower = 0.0
    if stage.kind != "grpo" or stage.rl.dynamic_sampling:
        tower = tower_flops(cfg, batch, lengths.image)
    once = forward.weights + forward.scores + forward.head
    penalised = stage.kind == "grpo" and (stage.rl.kl_coef > 0 or stage.rl.anchor_coef > 0)
    if part == "score":
        flops = tower + once * (1 + penalised)
        return Floor(flops, flops)
    scored = stage.rl.updates * stage.rl.micro_batches > 1      # the reference is known by then
    extra = tower + once * (penalised and not scored)
    if stage.lora.rank:
        adapters = 2.0 * forward.tokens * _adapter_weights(stage, cfg)
        once += adapters
        backward = forward.weights + forward.head + 2 * (forward.scores + adapters)
    else:
        backward = 2 * once
    least = extra + once + backward
    again = forward.head if forward.in_chunks else 0.0
    if cfg.remat == "full":     # the last product of a layer is not asked for again
        again += forward.weights * (1 - _mlp(cfg) / layer_weights(cfg)) + forward.scores
    if cfg.attention == "splash":   # beyond the two products that a gradient needs
        again += forward.scores * ((PRODUCTS["dq"] + PRODUCTS["dkv"]) / PRODUCTS["fwd"] - 2)
    return Floor(least + again, least)


class _Pass:
    """One pass of B prompts and their answers through decoder and head, each prompt once."""

    def __init__(self, cfg: ModelConfig, batch: int, group: int, prompt: int, answer: int,
                 parts: int = 1) -> None:
        rest = answer - 1       # the last token of an answer predicts nothing
        answers = batch * group * rest
        layers = cfg.text.num_hidden_layers
        if cfg.attention == "splash":
            runs = (Run(1, prompt), Run(group, rest)) if rest else (Run(1, prompt),)
            scores = batch * num_scores(SegmentTree(runs))
        else:   # masked scores are computed all the same
            scores = batch * prompt**2 + answers * (prompt + rest)
        self.tokens = batch * prompt + answers
        self.weights = 2.0 * layers * self.tokens * layer_weights(cfg)
        self.scores = 4.0 * layers * scores * cfg.text.hidden_size
        logits = batch * group * answer * cfg.text.vocab_size
        self.in_chunks = 4 * logits // parts > PLAIN_BYTES
        if not self.in_chunks:      # the first token of all answers has one distribution
            logits -= batch * (group - 1) * cfg.text.vocab_size
        self.head = 2.0 * logits * cfg.text.hidden_size


def _rollout(stage: StageConfig, cfg: ModelConfig, lengths: Lengths) -> float:
    batch, group, steps = stage.batch, stage.rl.group_size, stage.rl.max_tokens - 1
    prompt = _Pass(cfg, batch, 1, lengths.prompt, 1)
    tokens = batch * group * steps
    # Each step looks at the whole buffer.
    scores = 4.0 * cfg.text.num_hidden_layers * tokens * (
        lengths.prompt + steps) * cfg.text.hidden_size
    layers = 2.0 * cfg.text.num_hidden_layers * tokens * layer_weights(cfg)
    head = 2.0 * (batch + tokens) * cfg.text.hidden_size * cfg.text.vocab_size
    return (tower_flops(cfg, batch, lengths.image) + prompt.weights + prompt.scores + layers
            + scores + head)


def layer_weights(cfg: ModelConfig) -> int:
    """Weights of a decoder layer that multiply."""
    text = cfg.text
    keys = text.num_key_value_heads * text.head_dim
    return text.hidden_size * (2 * text.hidden_size + 2 * keys) + 3 * _mlp(cfg)


def _mlp(cfg: ModelConfig) -> int:
    """Weights of one of the three products of the MLP."""
    return cfg.text.hidden_size * cfg.text.intermediate_size


def tower_flops(cfg: ModelConfig, batch: int, image: int) -> float:
    """One pass of `image` features a prompt through the vision tower."""
    if not image:
        return 0.0
    vision, slots = cfg.vision, num_slots(image, cfg)
    patches, width, unit = batch * slots, vision.hidden_size, vision.spatial_merge_size**2
    full = len(vision.fullatt_block_indexes)
    weights = width * (4 * width + 3 * vision.intermediate_size)
    whole = fill_up(slots)**2 / slots if cfg.attention == "splash" else slots
    seen = full * whole + (vision.depth - full) * vision.window_patches
    merger = width * unit * (width * unit + vision.out_hidden_size)
    return (2.0 * patches * (vision.depth * weights + vision.patch_dim * width + merger / unit)
            + 4.0 * patches * seen * width)


def _adapter_weights(stage: StageConfig, cfg: ModelConfig) -> int:
    """Numbers in the low-rank factors of all layers."""
    recipe = make_recipe(stage.freeze, stage.lora)
    trained, _ = jax.eval_shape(
        lambda params: recipe.split(params, jax.random.key(0)), param_shapes(cfg))
    return sum(leaf.size for leaf in jax.tree.leaves(trained))
