"""What an update and a rollout cost with each prompt once, against repeating it for every answer.

    python benchmarks/sharing.py [--prompt 2048] [--tokens 256] [--answers 8] [--out FOLDER]

FLOPs of loss and gradient and bytes of keys and values, at the sizes of Qwen2.5-VL-7B's decoder;
the optimiser's few operations and a frozen tower's are left out, and nothing is allocated. XLA
counts the body of a loop once, so FLOPs are counted of programs of one and of two unrolled layers
with all logits at once, and go on in a straight line to all layers; an analytic count must agree to
5 %. Then the cost against G from 1 to 16: FLOPs at these sizes, and processor seconds of the tiny
guard's update; both are drawn into `sharing.png`. The part that the prompt costs is what a straight
line through two costs leaves at no answers: that of the largest groups is held to that of the
smallest. Prints lines: name, value, unit, bar, ok.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator

from bars import Line, report
from clock import load_line, median_seconds, pin_core

pin_core()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import guardjax.models as models  # noqa: E402
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig  # noqa: E402
from guardjax.models.init import Params, init_params, param_shapes  # noqa: E402
from guardjax.models.tiny import tiny_config  # noqa: E402
from guardjax.rl.answers import completion_mask  # noqa: E402
from guardjax.rl.logprobs import token_logprobs  # noqa: E402
from guardjax.rl.losses import LossParams, policy_loss  # noqa: E402
from guardjax.rl.model_fns import bind  # noqa: E402
from guardjax.rl.transform import make_transform  # noqa: E402
from guardjax.types import PromptBatch, Segment  # noqa: E402

FLOPS_BAR, BYTES_BAR, ANALYTIC = 3.5, 4.0, 0.05
GROUPS = (1, 2, 4, 8, 16)
TIMED_PROMPT, TIMED_TOKENS = 512, 16
# The time may take so many times the share of tokens, as an answer's rows are fewer a product.
TIME_FACTOR = 1.25
# A straight line trebles what disturbs the times it goes through.
PROMPT_SECONDS = (0.8, 1.25)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """B prompts of P tokens with G answers of T each; all arrays are full."""

    batch: int
    answers: int
    prompt: int
    tokens: int

    @property
    def repeated(self) -> Sizes:
        """The same answers, each with a prompt of its own."""
        return dataclasses.replace(self, batch=self.batch * self.answers, answers=1)


def config_7b(layers: int) -> ModelConfig:
    """Qwen2.5-VL-7B with some of its 28 decoder layers, and as small a tower as there can be."""
    vision = VisionConfig(depth=1, hidden_size=32, intermediate_size=32, num_heads=1,
                          out_hidden_size=3584, fullatt_block_indexes=(0,))
    text = TextConfig(vocab_size=152064, hidden_size=3584, intermediate_size=18944,
                      num_hidden_layers=layers, num_attention_heads=28, num_key_value_heads=4,
                      mrope_section=(16, 24, 24))
    return ModelConfig(vision, text, dtype="bfloat16")


def update(cfg: ModelConfig) -> Callable[..., Params]:
    """Jitted `(params, prompts, tokens, advantages) -> gradient` of the decoder's parameters."""
    # Without `head` no logits are made in chunks, whose loop would be counted once.
    fns = dataclasses.replace(bind(models, cfg), head=None)
    transform = make_transform(cfg.text.vocab_size)

    def gradient(params: Params, prompts: PromptBatch, tokens: jax.Array,
                 advantages: jax.Array) -> Params:
        length = jnp.full(tokens.shape[:2], tokens.shape[2])
        mask = completion_mask(length, tokens.shape[2])

        def loss(trained: Params) -> jax.Array:
            logp, _ = token_logprobs(fns, params | trained, prompts, tokens, length, transform)
            sums = policy_loss(logp, None, None, advantages, mask, LossParams())
            return sums.loss / sums.count

        return jax.grad(loss)({name: params[name] for name in params if name != "visual"})

    return jax.jit(gradient)


def arguments(cfg: ModelConfig, sizes: Sizes) -> tuple[PromptBatch, jax.Array, jax.Array]:
    """Prompts, answers and advantages; call it under `eval_shape` where they are large."""
    lead = (sizes.batch, sizes.prompt)
    words = jnp.arange(sizes.batch * sizes.prompt, dtype=jnp.int32).reshape(lead)
    place = jnp.broadcast_to(jnp.arange(sizes.prompt, dtype=jnp.int32)[:, None], (*lead, 3))
    segment = Segment(words % cfg.text.vocab_size, place, jnp.ones(lead, bool))
    answers = (sizes.batch, sizes.answers)
    return (PromptBatch(segment, jnp.full(sizes.batch, sizes.prompt, jnp.int32)),
            jnp.ones((*answers, sizes.tokens), jnp.int32), jnp.ones(answers))


@functools.cache
def counted_flops(sizes: Sizes) -> float:
    """Of an update of all 28 layers, from programs of one and of two."""
    def count(layers: int) -> float:
        cfg = config_7b(layers)
        shapes = jax.eval_shape(lambda: arguments(cfg, sizes))
        return update(cfg).lower(param_shapes(cfg), *shapes).cost_analysis()["flops"]

    one, two = count(1), count(2)
    return one + (config_7b(28).text.num_hidden_layers - 1) * (two - one)


def analytic_flops(sizes: Sizes) -> float:
    """Two a multiply-add, three passes (forward, and two products back), matrix products only.

    The last token of an answer is no input; the first is predicted once a prompt. Scores are whole
    rectangles: XLA computes what a mask then takes away.
    """
    text = config_7b(28).text
    width, inner = text.hidden_size, text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    kernels = 2 * width * inner + 2 * width * keys + 3 * width * text.intermediate_size
    inputs = sizes.tokens - 1
    answers = sizes.batch * sizes.answers * inputs
    tokens = sizes.batch * sizes.prompt + answers
    pairs = sizes.batch * sizes.prompt**2 + answers * (sizes.prompt + inputs)
    layer = 2 * tokens * kernels + 2 * pairs * 2 * inner
    head = 2 * (sizes.batch + answers) * width * text.vocab_size
    return 3.0 * (text.num_hidden_layers * layer + head)


def cache_bytes(sizes: Sizes) -> int:
    """Keys, values and masks of a rollout's cache in bfloat16: prompts, and buffers of answers."""
    cfg = config_7b(28)
    fns = bind(models, cfg)

    def cache(params: Params) -> object:
        prompts, _, _ = arguments(cfg, sizes)
        _, cache = fns.forward(params, (prompts.prompt,), None, None)
        return fns.open_buffer(cache, (sizes.batch, sizes.answers), sizes.tokens - 1)

    leaves = jax.tree.leaves(jax.eval_shape(cache, param_shapes(cfg)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def update_seconds(repeats: int) -> dict[int, float]:
    """Seconds of the tiny guard's update with each G, at sizes of its own."""
    cfg = dataclasses.replace(tiny_config(), scan_layers=True)      # it compiles fast
    params, step = init_params(cfg, jax.random.key(0)), update(cfg)

    def way(group: int) -> Callable[[], object]:
        inputs = arguments(cfg, Sizes(1, group, TIMED_PROMPT, TIMED_TOKENS))
        return lambda: step(params, *inputs)

    ways = {group: way(group) for group in GROUPS}
    for each in ways.values():
        jax.block_until_ready(each())
    return median_seconds(ways, repeats)


def prompt_part(costs: dict[int, float]) -> float:
    """Cost before any answer, from the two largest groups over that from the two smallest."""
    small, large = (2 * costs[group] - costs[2 * group] for group in (1, 8))
    return large / small


def draw(file: pathlib.Path, curves: dict[str, dict[int, float]]) -> None:
    """Cost against G, each curve over its own value at 1, beside repeating the prompt."""
    figure = Figure(figsize=(5.5, 4.0), layout="constrained")
    axes = figure.add_subplot(xlabel="answers a prompt, G", ylabel="cost, x that of G = 1")
    axes.plot(GROUPS, GROUPS, "--", color="0.5", label="prompt repeated")
    for name, values in curves.items():
        axes.plot(GROUPS, [values[group] / values[1] for group in GROUPS], "o-", label=name)
    axes.set_ylim(0, GROUPS[-1])
    axes.set_xticks(GROUPS)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    # No date and no versions: the same curves are the same file.
    figure.savefig(file, dpi=100, metadata={"Software": None})


def measurements(args: argparse.Namespace) -> Iterator[Line]:
    """At one size, then against the number of answers, which is drawn."""
    sizes = Sizes(1, args.answers, args.prompt, args.tokens)
    for name, each in (("shared", sizes), ("repeated", sizes.repeated)):
        yield Line(f"sharing/flops_counted_{name}", counted_flops(each) / analytic_flops(each),
                   "x_analytic", 1 - ANALYTIC, 1 + ANALYTIC)
    yield Line("sharing/update_flops", counted_flops(sizes.repeated) / counted_flops(sizes),
               "x_less_than_repeated", least=FLOPS_BAR)
    yield Line("sharing/rollout_kv_bytes", cache_bytes(sizes.repeated) / cache_bytes(sizes),
               "x_less_than_repeated", least=BYTES_BAR)

    flops = {group: counted_flops(dataclasses.replace(sizes, answers=group)) for group in GROUPS}
    yield Line("sharing/prompt_flops_16_answers", prompt_part(flops), "x_2_answers", 0.99, 1.01)
    seconds = update_seconds(args.repeats)
    draw(pathlib.Path(args.out) / "sharing.png", {
        f"FLOPs, 7B, P={args.prompt}, T={args.tokens}": flops,
        f"time, tiny, P={TIMED_PROMPT}, T={TIMED_TOKENS}": seconds})
    yield Line("sharing/prompt_seconds_16_answers", prompt_part(seconds), "x_2_answers",
               *PROMPT_SECONDS)
    share = (TIMED_PROMPT + 16 * TIMED_TOKENS) / (TIMED_PROMPT + TIMED_TOKENS)
    yield Line("sharing/update_seconds_16_answers", seconds[16] / seconds[1], "x_1_answer",
               most=TIME_FACTOR * share)


def main() -> int:
    """Runs the benchmark; returns 1 outside a bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=2048, help="P (default: 2048)")
    parser.add_argument("--tokens", type=int, default=256, help="T (default: 256)")
    parser.add_argument("--answers", type=int, default=8, help="G (default: 8)")
    parser.add_argument("--repeats", type=int, default=7, help="of the times (default: 7)")
    parser.add_argument("--out", default="runs/benchmarks", metavar="FOLDER",
                        help="of sharing.png (default: runs/benchmarks); what the README shows is "
                             "in benchmarks/plots")
    status = report(measurements(parser.parse_args()))
    print(load_line())
    return status


if __name__ == "__main__":
    sys.exit(main())
