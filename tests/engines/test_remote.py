"""Samples through an engine are the local sampler's; whatever is wrong is said, nothing mixed."""

import contextlib
import copy
import dataclasses
import json
import threading

import numpy as np
import pytest

from guardjax.rl.engine import EngineError
from .fake_engine import Behaviour, Drop, running

pytestmark = pytest.mark.usefixtures("quick_compilation")
KINDS = ("vllm", "sglang")
COMPLETIONS = ("/v1/completions", "/v1/chat/completions", "/generate")


@pytest.fixture(scope="module", name="likely")
def _likely(served):
    """The local sampler's most likely answers."""
    return served.local(served.params())


def sample(engine, served, seeds, step=7, **decoding):
    return engine.sample(served.prompts, served.examples, seeds, served.decoding(**decoding), step)


@contextlib.contextmanager
def loaded(kind, served, out, **limits):
    """(server, engine that asks it), after the first weights were handed over."""
    with running(kind, served.folder) as fake:
        engine = served.connect(kind, fake.url, out, **limits)
        engine.load(served.params(), 1)
        yield fake, engine


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_the_local_ones(kind, served, likely, seeds, tmp_path):
    with loaded(kind, served, tmp_path) as (_, engine):
        found = sample(engine, served, seeds)
        engine.close()
    for name in ("tokens", "length", "ended"):
        np.testing.assert_array_equal(getattr(found, name), getattr(likely, name), name)
    np.testing.assert_allclose(found.logp, likely.logp, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(found.logp, found.model_logp)
    assert found.logp.dtype == np.float32 and found.tokens.dtype == np.int32
    assert len(np.unique(likely.tokens)) > 3, "answers that could not differ say nothing"
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_reach_the_engine(kind, served, likely, seeds, tmp_path):
    other = served.params(2)
    wanted = served.local(other)
    assert not np.array_equal(wanted.tokens, likely.tokens)
    with loaded(kind, served, tmp_path) as (fake, engine):
        engine.load(other, 2)
        assert [path.name for path in (tmp_path / "engine").iterdir()] == [fake.version]
        found = sample(engine, served, seeds)
        if kind == "vllm":
            wired = fake.paths[fake.paths.index("/collective_rpc"):]
            assert wired[1:4] == ["/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"]
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_allclose(found.logp, wanted.logp, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_follows_from_its_seed_alone(kind, served, seeds, tmp_path):
    """Twice the same; with one seed changed, one answer changes."""
    others = seeds.copy()
    others[2, 1] = 7
    with loaded(kind, served, tmp_path) as (_, engine):
        one, two, three = (sample(engine, served, chosen, greedy=False, temperature=1.3)
                           for chosen in (seeds, seeds, others))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    differs = (one.tokens != three.tokens).any(-1)
    assert np.argwhere(differs).tolist() == [[2, 1]]
    assert (one.tokens[:, 0] != one.tokens[:, 1]).any(-1).all(), "answers of a group differ"


def test_what_is_asked_of_vllm_leaves_nothing_to_its_defaults(served, seeds, tmp_path):
    """Qwen's generation_config.json has a temperature, a top_p and a penalty of its own."""
    with loaded("vllm", served, tmp_path) as (fake, engine):
        sample(engine, served, seeds, greedy=False, temperature=0.7)
        bodies = fake.asked[-6:]
    for body in bodies:
        wanted = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "n": 1,
                  "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
        assert wanted.items() <= body.items()
        assert set(map(int, body["logit_bias"])) == set(served.model.blocked())
    assert sorted(body["seed"] for body in bodies) == sorted(seeds.reshape(-1).tolist())


def test_answers_end_at_stops_that_the_engine_does_not_know(served, likely, seeds, tmp_path):
    """A stop of two tokens is cut here, and counts as an end."""
    stop = tuple(int(token) for token in likely.tokens[0, 0, 1:3])
    with loaded("vllm", served, tmp_path) as (_, engine):
        found = sample(engine, served, seeds, stop=(stop,))
    assert found.length[0].tolist() == [3, 3] and found.ended[0].all()
    np.testing.assert_array_equal(found.tokens[0, :, :3], likely.tokens[0, :, :3])
    assert (found.tokens[0, :, 3] == served.model.batcher.tokenizer.pad_id).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_lost_server_only_what_is_missing_is_asked_again(kind, served, likely, seeds,
                                                              tmp_path):
    """It closes one connection in the midst of the batch, and goes on."""
    with loaded(kind, served, tmp_path, requests=1) as (fake, engine):
        first = len(fake.asked)

        def drop(number):
            if number == first + 3:
                raise Drop

        fake.behaviour.before = drop
        found = sample(engine, served, seeds)
        asked = [json.dumps(body) for body in fake.asked[first:]]
    np.testing.assert_array_equal(found.tokens, likely.tokens)
    assert len(asked) == 7 and asked.count(asked[2]) == 2, "one of the six was asked for twice"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_starts_anew_gets_the_weights_again(kind, served, seeds, tmp_path):
    """A new process has the weights of its start: what it says before it has ours is not used."""
    other = served.params(2)
    behaviour = Behaviour()
    with running(kind, served.folder, behaviour) as fake:
        engine = served.connect(kind, fake.url, tmp_path, requests=1)
        engine.load(other, 1)
        ours, first = fake.version, len(fake.asked)

        def die(number):
            if number == first + 3:
                fake.restart_weights()
                raise Drop

        behaviour.before = die
        found = sample(engine, served, seeds)
        assert fake.version == ours
    np.testing.assert_array_equal(found.tokens, served.local(other).tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_stays_away_is_named(kind, served, seeds, tmp_path):
    with loaded(kind, served, tmp_path, retry_seconds=0.3, requests=1) as (fake, engine):
        first = len(fake.asked)

        def die(number):
            if number == first + 3:
                fake.stop()
                raise Drop

        fake.behaviour.before = die
        with pytest.raises(EngineError, match=rf"engine {kind} at {fake.url}, step 7: lost .*not "
                                              r"back for 0.3 s \(rl.engine_retry_seconds\)"):
            sample(engine, served, seeds)


def test_weights_changed_by_another_run_are_noticed(served, seeds, tmp_path):
    with loaded("vllm", served, tmp_path) as (fake, engine):
        def steal(number):
            fake.version = "theirs"

        fake.behaviour.before = steal
        with pytest.raises(EngineError, match="step 7: it has the weights 'theirs' and should"):
            sample(engine, served, seeds)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_refused_are_not_tried_for_minutes(kind, served, tmp_path):
    with running(kind, served.folder, Behaviour(refuses_weights=True)) as fake:
        engine = served.connect(kind, fake.url, tmp_path, retry_seconds=600.0)
        with pytest.raises(EngineError, match="step 4: .* did not take the weights in .*visual"):
            engine.load(served.params(), 4)


def test_a_slow_server_is_not_waited_for(served, seeds, tmp_path):
    release = threading.Event()
    with loaded("vllm", served, tmp_path) as (fake, engine):
        hasty = copy.copy(engine)
        hasty._wire = dataclasses.replace(
            engine._wire, server=dataclasses.replace(engine._wire.server, seconds=0.2))
        fake.behaviour.before = lambda number: release.wait(60)
        with pytest.raises(EngineError, match=r"step 7, example e\d, .*took longer than 0.2 s; "
                                              r".*rl.engine_seconds"):
            sample(hasty, served, seeds)
        release.set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_the_engine_broke_off_is_asked_for_again(kind, served, likely, seeds,
                                                                 tmp_path):
    """As engines do with what is in flight when they are paused."""
    with loaded(kind, served, tmp_path, requests=1) as (fake, engine):
        first = len(fake.asked)

        def abort(reply):
            if len(fake.asked) == first + 2:
                if "meta_info" in reply:
                    reply["meta_info"]["finish_reason"] = {"type": "abort", "message": "paused"}
                else:
                    reply["choices"][0]["finish_reason"] = "abort"
            return reply

        fake.behaviour.mangle = abort
        found = sample(engine, served, seeds)
        assert len(fake.asked) == first + 7
    np.testing.assert_array_equal(found.tokens, likely.tokens)


def set_logp(value):
    def change(reply):
        if "meta_info" in reply:
            reply["meta_info"]["output_token_logprobs"][0][0] = value
        elif "content" in reply["choices"][0]["logprobs"]:
            reply["choices"][0]["logprobs"]["content"][0]["logprob"] = value
        else:
            reply["choices"][0]["logprobs"]["token_logprobs"][0] = value
        return reply
    return change


def without_logprobs(reply):
    if "meta_info" in reply:
        del reply["meta_info"]["output_token_logprobs"]
    else:
        reply["choices"][0]["logprobs"] = None
    return reply


def twice(reply):
    return [reply, reply] if "meta_info" in reply else reply | {"choices": 2 * reply["choices"]}


def other_prompt(reply):
    if "meta_info" in reply:
        reply["meta_info"]["prompt_tokens"] += 1
    else:
        (reply if "prompt_token_ids" in reply else reply["choices"][0])["prompt_token_ids"] = [1, 2]
    return reply


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change, problem", [
    (set_logp(float("nan")), r"token 0 has a log-probability of nan"),
    (set_logp(0.5), r"token 0 has a log-probability of 0.5; it must be a finite"),
    (set_logp(None), "token 0 has no log-probability"),
    (without_logprobs, "log-?prob"),
    (twice, "asked for 1 completion and got 2"),
    (other_prompt, "the engine saw another prompt: .* ours has"),
    (lambda reply: {"error": "oops"}, "answered without .*oops"),
], ids=["nan", "positive", "null", "missing", "two", "prompt", "malformed"])
def test_a_wrong_answer_stops_the_batch(kind, change, problem, served, seeds, tmp_path):
    with loaded(kind, served, tmp_path) as (fake, engine):
        fake.behaviour.mangle = change
        with pytest.raises(EngineError, match=rf"(?s)engine {kind} at .*, step 7, example e\d, "
                                              rf"completion \d: .*{problem}"):
            sample(engine, served, seeds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_resized_there_is_noticed(kind, served, seeds, tmp_path):
    with loaded(kind, served, tmp_path) as (fake, engine):
        fake.behaviour.extra_pixels = 64
        with pytest.raises(EngineError, match="the engine saw another prompt: .*max_pixels"):
            sample(engine, served, seeds)
