"""What training with M policies on one picture saves, against M prompts that each begin with it.

    python benchmarks/branching.py [--policies 4] [--image 1024] [--policy 256] [--tokens 32]

FLOPs of loss and gradient at the sizes of Qwen2.5-VL-7B's decoder, counted and carried on to all
layers as in `sharing.py`, with nothing allocated; then those of the tiny guard's tower within its
own rollout and update, in runs of the tower over the step's pictures: once in the rollout, and not
again in the loss of a frozen tower, whose features the rollout hands on. Prints lines: name, value,
unit, bar, ok.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from bars import Line, report
from sharing import config_7b, update

import guardjax.models as models
from guardjax import layout
from guardjax.models.init import param_shapes
from guardjax.models.tiny import tiny_config
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.model_fns import bind, encode_vision
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch, Segment, VisionInputs

ANSWERS = 8
SHARE = 0.9             # of what the share of tokens promises
PICTURES, SIDE = 2, 8   # of the tower's count: a batch, and a picture's side in patches


@dataclasses.dataclass(frozen=True)
class Sizes:
    """M policies of `policy` tokens under one picture of `image`, 8 answers of `tokens` each."""

    policies: int
    image: int
    policy: int
    tokens: int

    @property
    def saved(self) -> float:
        """Tokens with a picture before each policy, over tokens with it once."""
        end = self.policy + ANSWERS * self.tokens
        return self.policies * (self.image + end) / (self.image + self.policies * end)


def segment(lead: tuple[int, ...], tokens: int, features: bool = False) -> Segment:
    """Of zeros, in shape alone; full."""
    shape = (*lead, tokens)
    return Segment(jnp.zeros(shape, jnp.int32), jnp.zeros((*shape, 3), jnp.int32),
                   jnp.ones(shape, bool), jnp.zeros(shape, jnp.int32) if features else None)


def branched(sizes: Sizes, pictures: int = 1, vision: VisionInputs | None = None) -> PromptBatch:
    """Policies that branch from their picture."""
    lead = (pictures, sizes.policies)
    return PromptBatch(segment(lead, sizes.policy), jnp.zeros(lead, jnp.int32), vision,
                       segment((pictures,), sizes.image, vision is not None))


def counted_flops(sizes: Sizes, shared: bool) -> float:
    """Of an update of all 28 layers of the decoder, from programs of one and of two."""
    def inputs() -> tuple[PromptBatch, jax.Array, jax.Array]:
        whole = segment((sizes.policies,), sizes.image + sizes.policy)
        prompts = (branched(sizes) if shared else
                   PromptBatch(whole, jnp.zeros(sizes.policies, jnp.int32)))
        group = (sizes.policies, ANSWERS)
        return prompts, jnp.ones((*group, sizes.tokens), jnp.int32), jnp.ones(group)

    def count(layers: int) -> float:
        cfg = config_7b(layers)
        shapes = jax.eval_shape(inputs)
        return update(cfg).lower(param_shapes(cfg), *shapes).cost_analysis()["flops"]

    one, two = count(1), count(2)
    return one + (config_7b(28).text.num_hidden_layers - 1) * (two - one)


def tower_runs() -> dict[str, float]:
    """FLOPs that pictures add to the tiny guard's rollout and update, in runs of its tower.

    Of a step of 2 pictures under 4 policies each; the update of a trained tower is left out, as
    its gradient is no whole number of runs.
    """
    cfg = tiny_config()
    fns, params = bind(models, cfg), param_shapes(cfg)
    placed = layout.vision_layout([(1, SIDE, SIDE)], window_units=cfg.vision.window_units,
                                  merge=cfg.vision.spatial_merge_size)
    shape = (PICTURES, placed.num_slots)
    sizes = Sizes(4, 32, 16, 4)
    transform = make_transform(cfg.text.vocab_size)
    sampling = SamplingParams(ANSWERS, sizes.tokens, cfg.text.eos_token_id, cfg.text.pad_token_id)
    group = (PICTURES * sizes.policies, ANSWERS)

    def batch() -> PromptBatch:
        vision = VisionInputs(jnp.zeros((*shape, cfg.vision.patch_dim)),
                              jnp.zeros((*shape, 2), jnp.int32), jnp.zeros(shape, jnp.int32))
        return branched(sizes, PICTURES, vision)

    def see(params: object, prompts: PromptBatch) -> jax.Array:
        return encode_vision(fns, params, prompts)

    def rollout(params: object, prompts: PromptBatch, features: jax.Array | None) -> object:
        features = encode_vision(fns, params, prompts, features)
        return generate(fns, params, prompts, jax.random.key(0), sampling, transform,
                        features=features), features

    def loss(params: object, prompts: PromptBatch, features: jax.Array) -> object:
        def total(text: object) -> jax.Array:
            logp, _ = token_logprobs(
                fns, params | text, prompts, jnp.ones((*group, sizes.tokens), jnp.int32),
                jnp.full(group, sizes.tokens), transform, features=features)
            return logp.sum()
        return jax.grad(total)({"model": params["model"]})

    def flops(program: Callable[..., object], *inputs: object) -> float:
        return jax.jit(program).lower(params, *inputs).cost_analysis()["flops"]

    prompts = jax.eval_shape(batch)
    features = jax.eval_shape(see, params, prompts)
    once = flops(see, prompts)
    blind = dataclasses.replace(prompts, vision=None)
    return {"rollout": (flops(rollout, prompts, None) - flops(rollout, blind, features)) / once,
            "update_frozen": (flops(loss, prompts, features) - flops(loss, blind, features)) / once}


def measurements(sizes: Sizes) -> Iterator[Line]:
    """Of the decoder, then of the tower."""
    saved = counted_flops(sizes, False) / counted_flops(sizes, True)
    yield Line("branching/update_flops", saved, "x_less_than_prompt_by_prompt",
               least=SHARE * sizes.saved)
    runs = tower_runs()
    yield Line("branching/tower_in_rollout", runs["rollout"], "runs_a_picture", 0.99, 1.01)
    yield Line("branching/tower_in_update_frozen", runs["update_frozen"], "runs_a_picture",
               -0.01, 0.01)


def main() -> int:
    """Runs the benchmark; returns 1 outside a bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=4, help="M (default: 4)")
    parser.add_argument("--image", type=int, default=1024, help="image tokens (default: 1024)")
    parser.add_argument("--policy", type=int, default=256, help="policy tokens (default: 256)")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer (default: 32)")
    args = parser.parse_args()
    return report(measurements(Sizes(args.policies, args.image, args.policy, args.tokens)))


if __name__ == "__main__":
    sys.exit(main())
