"""Training with an engine: the numbers of training without one; nothing is lost with the server."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.cli.engines import connect_engine
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.rl.draw import sample_keys
from guardjax.rl.engine import EngineError, answer_seeds
from guardjax.train.config import LoraConfig
from guardjax.train.metrics import read_metrics
from guardjax.train.stages.grpo import GRPOStage
from .fake_engine import Behaviour, Drop, running

pytestmark = pytest.mark.usefixtures("quick_compilation")
STEPS, BATCH, GROUP, TOKENS, SEED = 3, 4, 2, 3, 11


def every_second(examples, completions):
    """Of each prompt one answer is better, whatever it says: no group is without a gradient."""
    return np.arange(len(completions)) % 2.0, np.ones(len(completions), bool)


@pytest.fixture(autouse=True)
def second_reward():
    COMPOSITIONS["second"] = Composition((Part("second", every_second),))
    yield
    del COMPOSITIONS["second"]


def config_of(served, url="", kind="vllm", steps=STEPS, **changes):
    config = served.guard.config("grpo", steps, **changes)
    engine = dict(engine=kind, engine_url=url, engine_retry_seconds=0.3) if url else {}
    return dataclasses.replace(config, rl=dataclasses.replace(
        config.rl, group_size=GROUP, max_tokens=TOKENS, temperature=1.2, reward="second",
        correction="token", **engine))


def stage_of(served, config, out=None):
    """The stage on prompts with pictures."""
    source = served.guard.source(num=STEPS, pictures=range(STEPS))
    engine = connect_engine(config, served.model, out) if out else None
    return GRPOStage(config, served.model, source, SEED, engine)


def give_local_keys(fake, steps=STEPS, batch=BATCH):
    """Has the server draw as the local sampler does: its seeds stand for the very same keys."""
    for step in range(steps):
        key = jax.random.fold_in(jax.random.key(SEED), jnp.int32(step))
        index = jnp.arange(batch, dtype=jnp.int32)
        seeds, keys = answer_seeds(key, index, GROUP), sample_keys(key, index, GROUP)
        for b, g in np.ndindex(seeds.shape):
            fake.keys[int(seeds[b, g])] = keys[b, g]
    assert len(fake.keys) == steps * batch * GROUP, "seeds of answers differ"


def run(served, stage, out):
    guard = dataclasses.replace(served.guard, params=served.params())
    bundle = guard.run([stage], out, every=100)
    return bundle.params, read_metrics(out / "metrics.jsonl")


def assert_same(one, other):
    assert len(one) == len(other) == STEPS
    for line, wanted in zip(one, other, strict=True):
        gap = line.pop("rollout/logp_gap"), line.pop("rollout/logp_gap_max")
        assert max(gap) < 1e-4
        wanted = {name: value for name, value in wanted.items() if "logp_gap" not in name}
        assert line.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, float) and not name.startswith("time"):
                assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.fixture(scope="module", name="alone")
def _alone(served, quick_compilation, tmp_path_factory):
    """(parameters, metrics) of the run without an engine."""
    COMPOSITIONS["second"] = Composition((Part("second", every_second),))
    return run(served, stage_of(served, config_of(served)), tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("kind", ["vllm", pytest.param("sglang", marks=pytest.mark.slow)])
def test_a_run_has_the_numbers_of_one_without_an_engine(kind, served, alone, tmp_path):
    with running(kind, served.folder) as fake:
        give_local_keys(fake)
        stage = stage_of(served, config_of(served, fake.url, kind), tmp_path)
        params, metrics = run(served, stage, tmp_path)
        assert fake.version.endswith(f"-{STEPS}"), "weights were handed over every step"
    assert_same(metrics, alone[1])
    assert all(line["grpo/zero_variance"] == 0 for line in metrics), "something was learnt"
    moved = max(float(jnp.abs(new - old).max()) for new, old in
                zip(jax.tree.leaves(params), jax.tree.leaves(served.params()), strict=True))
    apart = max(float(jnp.abs(new - old).max()) for new, old in
                zip(jax.tree.leaves(params), jax.tree.leaves(alone[0]), strict=True))
    assert apart < 0.05 * moved
    assert not list((tmp_path / "engine").glob("*")), "weights are not left behind"


@pytest.mark.slow
def test_adapters_reach_the_engine_in_the_weights(served, tmp_path):
    """Of a run that trains adapters alone, the engine has ordinary weights with them in it."""
    lora = LoraConfig(rank=2, alpha=4.0)
    local = run(served, stage_of(served, config_of(served, lora=lora)), tmp_path / "alone")
    with running("vllm", served.folder) as fake:
        give_local_keys(fake)
        stage = stage_of(served, config_of(served, fake.url, lora=lora), tmp_path / "engine")
        _, metrics = run(served, stage, tmp_path / "engine")
        moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()),
                             fake.params, served.params())
    assert_same(metrics, local[1])
    assert moved["model"]["layers_0"]["self_attn"]["q_proj"]["kernel"] > 0


def test_a_server_that_dies_loses_no_step(served, alone, tmp_path):
    """It stays away in step 2; the run ends with its state saved, and goes on to the same end."""
    behaviour = Behaviour()
    with running("vllm", served.folder, behaviour) as fake:
        give_local_keys(fake)
        config = config_of(served, fake.url)
        stage = stage_of(served, config, tmp_path)
        first = len(fake.asked)

        def die(number):
            if number == first + BATCH * GROUP + 3:
                fake.stop()
                raise Drop

        behaviour.before = die
        with pytest.raises(EngineError, match=r"step 2: lost .*Nothing is lost"):
            run(served, stage, tmp_path)
        assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]
        assert (tmp_path / "checkpoints").is_dir()
        behaviour.before = lambda number: None
        fake.restart_weights()
        fake.start()
        params, metrics = run(served, stage_of(served, config, tmp_path), tmp_path)
    assert_same(metrics, alone[1])


def test_a_wrong_answer_loses_no_step_either(served, tmp_path):
    behaviour = Behaviour()
    with running("sglang", served.folder, behaviour) as fake:
        stage = stage_of(served, config_of(served, fake.url, "sglang"), tmp_path)
        first = len(fake.asked)

        def mangle(reply):
            if len(fake.asked) > first + BATCH * GROUP:
                reply["meta_info"]["output_token_logprobs"][0][0] = float("nan")
            return reply

        behaviour.mangle = mangle
        with pytest.raises(EngineError, match=r"step 2, example 1/\d, completion \d: token 0 has a "
                                              "log-probability of nan"):
            run(served, stage, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()]


def test_weights_that_are_not_ours_stop_the_run(served, tmp_path):
    """A server that says that it has them and answers with others: the gap tells."""
    from guardjax.train.stages.logp_gap import LogpGapError

    with running("vllm", served.folder) as fake:
        stage = stage_of(served, config_of(served, fake.url), tmp_path)
        other = served.params(2)
        fake._load = lambda folder: setattr(fake, "params", other)
        with pytest.raises(LogpGapError, match="step 1: .* above rl.logp_gap_limit=0.001; .*"
                                               "Start the engine 'vllm' with the precision"):
            run(served, stage, tmp_path)


def test_a_stage_has_an_engine_if_and_only_if_it_names_one(served):
    with pytest.raises(ValueError, match="rl.engine='vllm' and the stage was given no engine"):
        stage_of(served, config_of(served, "http://127.0.0.1:1"))
