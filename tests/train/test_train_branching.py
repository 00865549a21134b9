"""GRPO with many policies on one picture: the update of prompts on their own, the tower once."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from guardjax.data.branching import branch_prompts
from guardjax.data.sources import Batch
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.config import ConfigError, resolve
from guardjax.train.features import FeatureCache
from guardjax.train.parts import by_trunk
from guardjax.train.recipe import make_recipe
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.grpo_loss import GroupLoss
from guardjax.train.state import Bundle
from guardjax.types import PolicyExample

TRUNKS, M, GROUP, TOKENS = 4, 2, 4, 3
BATCH = TRUNKS * M
TEXTS = ("R1: no knife.", "R1: no dog in a garden. R2: no hats.")


def letters(examples, completions):
    """A reward that differs within a group, whatever an untrained model says."""
    value = [sum(map(ord, text)) % 7 + i % 2 for i, text in enumerate(completions)]
    return np.array(value, float), np.ones(len(completions), bool)


@dataclasses.dataclass
class PictureSource:
    """Batches of four pictures under two policies each, with or without branches."""

    batcher: object
    branched: bool

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rng = np.random.default_rng(int(index))
        pictures = rng.integers(0, 256, (TRUNKS, 64, 64, 3)).astype(np.uint8)
        examples = tuple(PolicyExample(
            f"{i}/{m}", "judge", "safe?", TEXTS[m], pictures[i], answer="safe",
            label=("safe", "unsafe")[m], image_id=f"{i}",
            facts={"rules": ("R1", "R2")}) for i in range(TRUNKS) for m in range(M))
        tokens, length = self.batcher.answers([[e.answer] for e in examples])
        prompts = (branch_prompts(self.batcher, examples, M) if self.branched else
                   self.batcher.prompts(examples))
        return Batch(examples, prompts, tokens, length)


@pytest.fixture(scope="module", autouse=True)
def _reward(quick_compilation):
    COMPOSITIONS["branch letters"] = Composition((Part("letters", letters),))
    yield
    del COMPOSITIONS["branch letters"]


def make_config(small_guard, freeze=("visual",), feature_cache=False, **rl):
    config = small_guard.config("grpo", 2, freeze=freeze, feature_cache=feature_cache)
    rl = dict(group_size=GROUP, max_tokens=TOKENS, reward="branch letters", kl_coef=0.1) | rl
    return dataclasses.replace(config, batch=BATCH, rl=dataclasses.replace(config.rl, **rl))


def run(small_guard, config, branched, fns=None):
    """(metrics of a step, its samples)."""
    model = small_guard.model if fns is None else dataclasses.replace(small_guard.model, fns=fns)
    stage = GRPOStage(config, model, PictureSource(model.batcher, branched), 3)
    bundle = stage.init(Bundle(frozen=small_guard.params))
    bundle, metrics, shown = stage.step(bundle, next(bundle.data_iterator))
    return jax.device_get(metrics), shown.rollouts[0].samples


def counted(small_guard):
    """The model's functions, and how many rows each trace of the tower has."""
    rows, fns = [], small_guard.model.fns
    return dataclasses.replace(fns, encode=lambda params, vision: (
        rows.append(vision.frame.shape[0]), fns.encode(params, vision))[1]), rows


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_prompts_on_their_own(small_guard):
    """Of the same answers: the loss to 1e-5, each gradient to 1e-4 of its norm."""
    model, config = small_guard.model, make_config(small_guard)
    recipe, rng = make_recipe(config.freeze, config.lora), np.random.default_rng(0)
    objective = GroupLoss(config, model, recipe)
    trained, frozen = recipe.split(small_guard.params, jax.random.key(0))
    logp = rng.normal(-3, 1, (BATCH, GROUP, TOKENS)).astype(np.float32)
    answers = {
        "tokens": rng.integers(3, 60, logp.shape).astype(np.int32),
        "length": rng.integers(1, TOKENS + 1, logp.shape[:2]).astype(np.int32),
        "ended": np.ones(logp.shape[:2], bool), "sampled_logp": logp, "model_logp": logp,
        "rewards": rng.normal(size=logp.shape[:2]).astype(np.float32),
        "valid": np.ones(logp.shape[:2], bool), "anchor": np.zeros(BATCH, bool)}
    # A reference that is another model, so that the penalty has a gradient.
    ref = jax.tree.map(lambda leaf: 1.1 * leaf, trained)

    def gradient(branched):
        prompts = PictureSource(model.batcher, branched)[0].prompts
        batch = by_trunk(answers, prompts) | {"prompts": prompts, "features": None}
        return jax.jit(jax.value_and_grad(lambda p: objective.loss(
            p, {"frozen": frozen, "ref": ref}, batch, None)[0]))(trained)

    (loss, grads), (want, want_grads) = gradient(True), gradient(False)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(grads),
                                  jax.tree.leaves(want_grads), strict=True):
        if "k_proj" not in str(path) or "bias" not in str(path):    # moves no softmax: rounding
            assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other), path


@pytest.mark.slow
def test_a_step_in_parts_is_that_of_prompts_on_their_own(small_guard):
    """The same samples; old log-probabilities and advantages come from whole pictures."""
    config = make_config(small_guard, micro_batches=2)
    metrics, samples = run(small_guard, config, True)
    want, want_samples = run(small_guard, config, False)
    np.testing.assert_array_equal(samples.tokens, want_samples.tokens)
    np.testing.assert_allclose(samples.logp, want_samples.logp, atol=2e-5)
    assert set(metrics) == set(want) and float(want["grad_norm"][0]) > 1e-3
    for name, (total, count) in want.items():
        if "gap" in name or name == "loss":         # differences of near equals
            np.testing.assert_allclose(metrics[name][0], total, atol=2e-4)
        else:
            np.testing.assert_allclose(metrics[name], (total, count), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_tower_runs_once_an_image_and_update(small_guard):
    """Frozen: in the rollout alone, a row a picture. Trained: once more, with its gradient."""
    fns, rows = counted(small_guard)
    run(small_guard, make_config(small_guard), True, fns)
    assert rows == [TRUNKS], "one trace, of the pictures; none in the loss or the reference"
    fns, rows = counted(small_guard)
    run(small_guard, make_config(small_guard, freeze=(), kl_coef=0.0), True, fns)
    assert rows == [TRUNKS, TRUNKS]


@pytest.mark.slow
def test_features_on_disk_change_nothing_and_spare_the_tower(small_guard, monkeypatch, tmp_path):
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path))
    plain = run(small_guard, make_config(small_guard), True)
    config = make_config(small_guard, feature_cache=True)
    first = run(small_guard, config, True)
    files = [path for path in (tmp_path / "features").rglob("*") if path.is_file()]
    assert len(files) == TRUNKS
    fns, rows = counted(small_guard)
    again = run(small_guard, config, True, fns)
    assert rows == [1], "traced for its shape, never run"
    jax.tree.map(np.testing.assert_array_equal, again, first)
    np.testing.assert_array_equal(first[1].tokens, plain[1].tokens)
    np.testing.assert_allclose(first[1].logp, plain[1].logp, atol=2e-5)


def test_a_changed_tower_pixel_or_type_never_finds_features_of_another(small_guard, tmp_path):
    fns, params = small_guard.model.fns, {"visual": small_guard.params["visual"]}
    vision = branch_prompts(
        small_guard.model.batcher,
        PictureSource(small_guard.model.batcher, True)[0].examples, M).vision

    def ask(params=params, vision=vision, about="float32"):
        cache = FeatureCache(tmp_path, fns.encode, about)
        return cache, np.asarray(cache.features(params, vision))

    cache, found = ask()
    assert (cache.encoded, cache.read) == (TRUNKS, 0)
    np.testing.assert_allclose(found, fns.encode(params, vision), atol=1e-5)
    cache, again = ask()
    assert (cache.encoded, cache.read) == (0, TRUNKS)
    np.testing.assert_array_equal(again, found)
    nudged = jax.tree.map(lambda leaf: leaf, params)
    leaves, tree = jax.tree.flatten(nudged)
    leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].add(1e-6)
    assert ask(jax.tree.unflatten(tree, leaves))[0].read == 0
    assert ask(about="bfloat16")[0].read == 0
    patches = np.array(vision.patches)
    patches[0, 0, 0] += 1e-3
    cache, _ = ask(vision=vision.replace(patches=patches))
    assert (cache.encoded, cache.read) == (1, TRUNKS - 1)
    # In one process, too: the parameters that a second stage hands over are weighed anew.
    cache, _ = ask()
    cache.features(jax.tree.unflatten(tree, leaves), vision)
    assert cache.read == 2 * TRUNKS, "those of the nudged tower were kept above"


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: (
    data[:40] + bytes([data[40] ^ 1]) + data[41:])])
def test_a_damaged_file_is_made_again(small_guard, tmp_path, damage):
    batch = PictureSource(small_guard.model.batcher, True)[0]
    params = {"visual": small_guard.params["visual"]}
    ask = lambda: FeatureCache(tmp_path, small_guard.model.fns.encode, "float32")
    found = np.asarray(ask().features(params, batch.prompts.vision))
    file = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    cache = ask()
    np.testing.assert_array_equal(cache.features(params, batch.prompts.vision), found)
    assert (cache.encoded, cache.read) == (1, TRUNKS - 1) and file.read_bytes() == whole


@pytest.mark.parametrize("changes, message", [
    ({"policies_per_image": 3}, "policies_per_image must be 1 or even, got 3"),
    ({"policies_per_image": 4, "batch": 12}, "batch=12 does not divide by 8"),
    ({"policies_per_image": 4, "batch": 16, "rl": {"micro_batches": 4}},
     "batch=16 does not divide by 32"),
    ({"policies_per_image": 2, "policies": "L3"}, "policies='L3' is one: set it to 1"),
    ({"policies_per_image": 2, "rl": {"preset": "dapo"}}, "dynamic_sampling chooses prompt by"),
    ({"feature_cache": True}, "freeze does not name 'visual'"),
    ({"kind": "sft", "feature_cache": True, "freeze": ["visual"]}, "is not for kind 'sft'")])
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "run", "stages": [{"kind": "grpo", "steps": 1} | changes]})


def test_branches_after_the_picture_want_its_template():
    stages = [{"kind": "grpo", "steps": 1, "policies_per_image": 2}]
    with pytest.raises(ConfigError, match="template='policy_first' begins with the policy"):
        resolve({"name": "run", "template": "policy_first", "stages": stages})
    with pytest.raises(ConfigError, match="template must be one of 'image_first', 'policy_first'"):
        resolve({"name": "run", "template": "question_first", "stages": stages})
