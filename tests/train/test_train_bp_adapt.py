"""Stage `bp_adapt`: its loss beside SFT's, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.data.decision import decision_of
from guardjax.data.sources import Batch
from guardjax.rl.answers import answer_segment
from guardjax.rl.logprobs import token_logprobs
from guardjax.train.config import ConfigError, HingeConfig, resolve
from guardjax.train.stages.bp_adapt import BPAdaptStage
from guardjax.train.stages.sft import SFTStage
from guardjax.train.state import Bundle
from guardjax.types import PolicyExample

pytestmark = pytest.mark.usefixtures("quick_compilation")
SAFE, UNSAFE = "<answer>safe</answer>", "<answer>unsafe: R1</answer>"


@dataclasses.dataclass
class Pairs:
    """Two pictures a batch, each under two policies."""

    batcher: object

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng(int(index))
        images = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
        examples = tuple(
            PolicyExample(f"{index}/{k}", "judge", "safe?", f"R1: no {('fox', 'dog')[k % 2]}.",
                          images[k // 2], answer=(SAFE, UNSAFE)[k % 2],
                          label=("safe", "unsafe")[k % 2], image_id=f"{index}/{k // 2}")
            for k in range(4))
        tokens, length = self.batcher.answers([[e.answer] for e in examples])
        return Batch(examples, self.batcher.prompts(examples), tokens, length)


@pytest.fixture(scope="module")
def pairs(small_guard):
    return Pairs(small_guard.model.batcher)


def stage_of(small_guard, pairs, kind="bp_adapt", **hinge):
    config = small_guard.config(kind, 3, **({"hinge": HingeConfig(**hinge)} if hinge else {}))
    return {"bp_adapt": BPAdaptStage, "sft": SFTStage}[kind](config, small_guard.model, pairs, 5)


def trained(small_guard, stage, tmp_path):
    return small_guard.run([stage], tmp_path / "run").frozen


@pytest.mark.slow
def test_without_coefficients_it_is_sft_to_the_bit(small_guard, pairs, tmp_path):
    none = trained(small_guard, stage_of(small_guard, pairs, own_coef=0.0, pair_coef=0.0),
                   tmp_path / "a")
    sft = trained(small_guard, stage_of(small_guard, pairs, "sft"), tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, none, sft)


def test_the_loss_is_cross_entropy_and_the_hinges(small_guard, pairs):
    """All of it again in float64, from logits that the two forms of an answer are given."""
    model, params, batch = small_guard.model, small_guard.params, pairs[0]
    decision = decision_of(model.batcher.tokenizer)
    tokens, length = model.batcher.answers([[SAFE, UNSAFE]] * 4)
    begun = jnp.asarray(tokens[:, :1, :decision.position])

    @jax.jit
    def oracle(params):
        """Log-probabilities of both answers, and all logits after the first words of one."""
        logp, _ = token_logprobs(
            model.fns, params, batch.prompts, tokens, length, model.transform())
        segments = (batch.prompts.prompt,
                    answer_segment(batch.prompts, begun, jnp.ones(begun.shape, bool), 0))
        features = model.fns.encode(params, batch.prompts.vision)
        (_, hidden), _ = model.fns.forward(params, segments, features, None)
        return logp, model.fns.unembed(params, hidden[:, 0, -1])

    logp, logits = (np.asarray(found, np.float64) for found in oracle(params))
    cross_entropy = -sum(logp[k, k % 2].sum() for k in range(4))
    safe, unsafe = logits[:, decision.safe], logits[:, decision.unsafe]
    own = np.maximum(0, 0.3 - (safe - unsafe) * [1, -1, 1, -1])
    pair = (np.maximum(0, 0.3 - (unsafe[1::2] - unsafe[::2]))
            + np.maximum(0, 0.3 - (safe[::2] - safe[1::2]))) / 2
    assert len({*own.round(4)}) == 4 and len({*pair.round(4)}) == 2     # nothing is cut to 0

    stage = stage_of(small_guard, pairs, own_coef=0.7, pair_coef=0.4, margin=0.3)
    bundle = stage.start(Bundle(frozen=params))
    total, count, metrics = jax.jit(stage._loss)(
        bundle.state.params, bundle.frozen, stage._arrays(batch), jax.random.key(0))
    assert count == 2 * (4 + 6)     # with the end token of either form
    np.testing.assert_allclose(
        total / count, cross_entropy / 20 + 0.7 * own.mean() + 0.4 * pair.mean(), atol=1e-5)
    np.testing.assert_allclose(metrics["bp_adapt/own"], (own.sum(), 4), atol=1e-5)
    np.testing.assert_allclose(metrics["bp_adapt/pair"], (pair.sum(), 2), atol=1e-5)


def test_other_examples_are_refused(small_guard, pairs):
    stage, batch = stage_of(small_guard, pairs), pairs[0]
    bundle = stage.start(Bundle(frozen=small_guard.params))
    turned = dataclasses.replace(batch, examples=batch.examples[::-1])
    with pytest.raises(ValueError, match="examples 0 and 1 are no matched pair: 'unsafe'"):
        stage.step(bundle, turned)
    edits = (batch.examples[0], batch.examples[3], *batch.examples[2:])
    with pytest.raises(ValueError, match="'0/0' and 'unsafe' of '0/1', not 'safe' and 'unsafe'"):
        stage.step(bundle, dataclasses.replace(batch, examples=edits))


@pytest.mark.parametrize("stage, message", [
    ({"kind": "bp_adapt", "hinge": {"own_coef": -1.0}}, "own_coef must be >= 0, got -1.0"),
    ({"kind": "bp_adapt", "policies": "L3"}, "policies='L3' is not for kind 'bp_adapt'"),
    ({"kind": "bp_adapt", "think": True}, "think=True is not for kind 'bp_adapt'"),
    ({"kind": "bp_adapt", "data": {"judge": 0.5, "caption": 0.5}}, "is not for kind 'bp_adapt'"),
    ({"kind": "sft", "hinge": {"margin": 1.0}}, "margin=1.0.* is not for kind 'sft'"),
])
def test_what_the_config_refuses(stage, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "x", "stages": [{"steps": 1, **stage}]})
