"""Configs: strict, explained, canonical."""

import pathlib
import pickle

import ml_collections
import pytest

from guardjax.train.config import (
    ConfigError,
    RunConfig,
    StageConfig,
    digest,
    from_text,
    resolve,
    to_text,
)

GOLDEN = sorted((pathlib.Path(__file__).parents[1] / "golden" / "configs").rglob("*.txt"))


def minimal(**changes):
    return ml_collections.ConfigDict(
        {"name": "run", "stages": [{"kind": "sft", "steps": 10}]} | changes)


def test_defaults_are_filled_in_and_ints_stand_for_floats():
    run = resolve(minimal(stages=[{"kind": "grpo", "steps": 3, "optim": {"lr": 1},
                                   "freeze": ["visual"]}]))
    assert run.stages[0].optim.lr == 1.0 and isinstance(run.stages[0].optim.lr, float)
    assert run.stages[0].name == "grpo" and run.stages[0].freeze == ("visual",)
    assert run.base == "base" and run.stages[0].rl.group_size == 8
    assert pickle.loads(pickle.dumps(run)) == run


def test_plain_mappings_and_references_resolve_alike():
    config = minimal(seed=4)
    config.world = ml_collections.ConfigDict({"seed": config.get_ref("seed")})
    plain = {"name": "run", "seed": 4, "world": {"seed": 4},
             "stages": ({"kind": "sft", "steps": 10},)}
    assert resolve(config) == resolve(plain)


ENGINE = {"engine": "vllm", "engine_url": "http://a:1", "correction": "token"}


@pytest.mark.parametrize("changes, message", [
    ({"sead": 1},
     r"unknown config key 'sead'\. Did you mean 'seed'\? Valid: attention, base, checkpoint"),
    ({"stages": [{"kind": "sft", "steps": 1, "optim": {"learning_rate": 1.0}}]},
     r"'stages\.0\.optim\.learning_rate'.* Valid: stages\.0\.optim\.b1"),
    ({"stages": [{"kind": "sft"}]}, r"missing config key\(s\): stages\.0\.steps"),
    ({"seed": 1.5}, r"seed must be int, got 1\.5 \(float\)"),
    ({"seed": True}, r"seed must be int, got True"),
    ({"name": 3}, r"name must be text"),
    ({"stages": [{"kind": "ppo", "steps": 1}]},
     r"stages\.0\.kind must be one of 'sight', 'sft', 'bp_adapt', 'grpo', 'exact', got 'ppo'"),
    ({"stages": [{"kind": "sft", "steps": 1, "think": 1}]}, r"think must be true or false"),
    ({"stages": [{"kind": "sft", "steps": 1, "freeze": "visual"}]}, r"freeze must be a list"),
    ({"stages": [{"kind": "sft", "steps": 1, "data": {"captoin": 1.0}}]},
     r"stages\.0: unknown example kind in data 'captoin'\. Did you mean 'caption'\?"),
    ({"stages": [{"kind": "sft", "steps": 1, "data": {"judge": 0.0}}]}, r"no positive weight"),
    ({"stages": [{"kind": "sft", "steps": 1, "rl": {"group_size": 1}}]},
     r"stages\.0\.rl: group_size must be >= 2, got 1"),
    ({"stages": [{"kind": "sft", "steps": 1}] * 2}, r"different names, repeated: sft"),
    ({"stages": [{"kind": "sft", "steps": 1, "spell_share": 1.5}]},
     r"stages\.0: spell_share must be in \[0, 1\], got 1\.5"),
    ({"stages": [{"kind": "sft", "steps": 1, "plain_share": 0.5, "policies": "L3"}]},
     r"plain_share=0\.5 chooses among varied policies, and policies='L3'; set it to 0"),
    ({"stages": [{"kind": "sft", "steps": 1, "data": {"habit": 1.0}}]},
     r"stages\.0: data\.habit=1\.0 and house='': a habit needs a house policy's YAML file"),
    ({"stages": [{"kind": "sft", "steps": 1, "house": "h.yaml"}]},
     r"stages\.0: data\.habit=0 and house='h\.yaml'"),
    ({"stages": [{"kind": "sft", "steps": 1, "closeness": 1.0}]},
     r"stages\.0: closeness=1\.0 is not for kind 'sft', which does not read it: leave it out"),
    ({"stages": [{"kind": "sft", "steps": 1, "rl": {"preset": "gspo"}}]},
     r"stages\.0: rl\.preset='gspo' is not for kind 'sft'"),
    ({"stages": [{"kind": "exact", "steps": 1, "rl": {"kl_coef": 0.5}}]},
     r"stages\.0: rl\.kl_coef=0\.5 is not for kind 'exact'"),
    ({"stages": [{"kind": "grpo", "steps": 1, "think": True}]},
     r"stages\.0: think=True is not for kind 'grpo'"),
    ({"stages": [{"kind": "sight", "steps": 1, "data": {"caption": 1.0}}]},
     r"stages\.0: data=.* is not for kind 'sight'"),
    ({"stages": [{"kind": "exact", "steps": 1, "data": {"judge": 0.5, "caption": 0.5}}]},
     r"stages\.0: rl\.anchor_coef=0\.0 and data has caption"),
    ({"stages": [{"kind": "grpo", "steps": 1, "rl": {"anchor_coef": 1.0}, "house": "h.yaml",
                  "data": {"judge": 0.5, "habit": 0.5}}]},
     r"stages\.0: data\.habit: .* cannot be held to the reference"),
    ({"stages": [{"kind": "sft", "steps": 1, "lora": {"alpha": 3.0}}]},
     r"stages\.0\.lora: alpha=3\.0 is for adapters, and rank is 0"),
    ({"stages": [{"kind": "grpo", "steps": 1, "rl": {"kl": "k1", "kl_coef": 0.1}}]},
     r"stages\.0\.rl: kl='k1' in the loss has a gradient of zero"),
    ({"stages": [{"kind": "sight", "steps": 1, "closeness": -1.0}]},
     r"stages\.0: closeness must be >= 0, got -1\.0"),
    *(({"stages": [{"kind": "grpo", "steps": 1, "rl": rl}]}, message) for rl, message in [
        ({"top_k": -1}, r"stages\.0\.rl: top_k must be >= 0, got -1; 0 keeps all tokens"),
        ({"top_p": 0.0, "correction": "token"}, r"rl: top_p must be in \(0, 1\], got 0\.0"),
        ({"top_p": 1.1}, r"rl: top_p must be in \(0, 1\], got 1\.1; 1 keeps all tokens"),
        ({"min_p": 1.0}, r"rl: min_p must be in \[0, 1\), got 1\.0; 0 keeps all tokens"),
        ({"top_p": 0.9}, r"Truncation\(top_k=0, top_p=0\.9, min_p=0\.0\) samples from another "
                         r"distribution than the one that is trained: set correction to 'token'"),
        ({"stop": ["", "a"]}, r"rl: stop has an empty text, got \['', 'a'\]: leave it out"),
        ({"slots": -2}, r"rl: slots must be >= 0, got -2; 0 decodes all together"),
        ({"slots": 257}, r"rl\.slots=257 do not fit: batch=32 prompts of rl\.group_size=8 have 25"),
        ({"logp_gap_limit": -1.0}, r"logp_gap_limit must be >= 0, got -1\.0; 0 goes by dtype"),
        ({"engine": "vlm"}, r"rl\.engine must be one of 'local', 'vllm', 'sglang', got 'vlm'"),
        ({"engine_url": "http://a:1"}, r"engine_url='http://a:1' is for an engine, and engine is "
                                       r"'local': set engine to 'vllm' or 'sglang'"),
        *((ENGINE | wrong, message) for wrong, message in [
            ({"engine_url": ""}, r"engine='vllm' needs engine_url as http://host:port, got ''"),
            ({"engine_url": "a:8000"}, r"engine_url as http://host:port, got 'a:8000'"),
            ({"engine_url": "http://a:1/v1"}, r"as http://host:port, got 'http://a:1/v1'"),
            ({"correction": "none"}, r"engine='vllm' rounds otherwise than training does: set "
                                     r"correction to 'token' or 'sequence'"),
            ({"top_p": 0.9}, r"top_p=0\.9.* is for engine='local'.*leave top_k, top_p and min_p"),
            ({"slots": 4}, r"slots=4 is for engine='local'.*set it to 0"),
            ({"engine_seconds": 0.0}, r"engine_seconds must be positive, got 0\.0"),
            ({"engine_retry_seconds": -1.0}, r"engine_retry_seconds must be >= 0, got -1\.0"),
            ({"engine_requests": 0}, r"engine_requests must be >= 1, got 0"),
        ]),
    ]),
    ({"stages": [{"kind": "exact", "steps": 1, "rl": {
        "engine": "vllm", "engine_url": "http://a:1", "correction": "token"}}]},
     r"rl\.\w+='\w+' is not for kind 'exact'"),
    ({"stages": [{"kind": "exact", "steps": 1, "rl": {"slots": 2}}]},
     r"rl\.slots=2 is not for kind 'exact'"),
    ({"stages": [{"kind": "sft", "steps": 1, "rl": {"top_k": 2, "correction": "token"}}]},
     r"rl\.top_k=2 is not for kind 'sft'"),
    ({"stages": [{"kind": "grpo", "steps": 1, "rl": {"slots": 8}}], "mesh": {"rules": "fsdp"}},
     r"stage 'grpo': rl\.slots=8 takes prompts from the whole batch, which mesh\.rules='fsdp'"),
    ({"lengths": {"answer": [24, 24]}},
     r"lengths: answer must be positive lengths that ascend, each once, got \[24, 24\]"),
    ({"lengths": {"prompt": [0, 64]}}, r"lengths: prompt must be positive .* got \[0, 64\]"),
    ({"lengths": {"prompt": [64.0]}}, r"lengths\.prompt\.0 must be int, got 64\.0"),
    ({"lengths": {"prompts": [64]}}, r"'lengths\.prompts'\. Did you mean 'lengths\.prompt'\?"),
    ({"world": 3}, r"world must be a mapping \(WorldConfig\)"),
    ({"stages": [{"kind": "sft", "steps": 1, "optim": {"lr": float("nan")}}]}, r"lr must be float"),
])
def test_bad_configs_name_the_key_and_what_is_allowed(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(minimal(**changes))


def test_overrides_are_parsed_by_type():
    run = resolve(minimal(), [
        "--config.stages.0.steps=12", "stages.0.optim.lr=3e-4", "--name=42",
        "stages.0.think=true", "stages.0.freeze=visual,lm_head", "stages.0.data.caption=0.2",
        "world.sizes.train=7", "stages.0.policies=L3", "lengths.answer=24,320"])
    stage = run.stages[0]
    assert (stage.steps, stage.optim.lr, stage.think, stage.policies) == (12, 3e-4, True, "L3")
    assert run.name == "42" and stage.freeze == ("visual", "lm_head")
    assert stage.data == {"judge": 1.0, "caption": 0.2}
    assert run.world.sizes == {"train": 7, "dev": 256, "test": 512}
    assert (run.lengths.prompt, run.lengths.answer) == ((), (24, 320))
    assert resolve(minimal(), ["stages.0.freeze="]).stages[0].freeze == ()


@pytest.mark.parametrize("override, message", [
    ("seed", "looks like key.path=value"),
    ("stages.1.steps=3", r"no entry '1', stages has 1"),
    ("stages.0.stpes=3", r"Did you mean 'stages\.0\.steps'\?"),
    ("stages.0.steps=1e3", r"stages\.0\.steps must be int, got '1e3'"),
    ("stages.0.think=yes", r"must be true or false, got 'yes'"),
    ("seed.deeper=1", r"nothing below it"),
    ("stages.0.kind=ppo", r"one of 'sight'"),
    ("world.sizes=oops", r"mapping from text to int"),
])
def test_bad_overrides(override, message):
    with pytest.raises(ConfigError, match=message):
        resolve(minimal(), [override])


def test_text_is_canonical_and_the_digest_follows_it():
    run = resolve(minimal())
    text = to_text(run)
    assert "stages.0.optim.lr: 0.001\n" in text and 'stages.0.data.judge: 1.0\n' in text
    assert text == to_text(resolve(minimal(seed=0)))
    assert digest(run) == digest(resolve(minimal())) != digest(resolve(minimal(seed=1)))
    leaves = [line.split(":")[0] for line in text.splitlines()]
    assert len(set(leaves)) == len(leaves)


def test_every_field_is_documented_where_it_stands():
    for cls in (RunConfig, StageConfig):
        assert cls.__doc__ and not cls.__doc__.startswith(cls.__name__ + "(")


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_config_comes_back_from_its_text(file):
    text = file.read_text()
    run = from_text(RunConfig, text)
    assert to_text(run) == text and from_text(RunConfig, to_text(run)) == run


def test_a_text_of_fewer_keys_has_defaults_and_an_empty_list_stays_one():
    assert from_text(RunConfig, 'name: "a"\nstages: []\nseed: 3\n') == RunConfig("a", (), seed=3)


@pytest.mark.parametrize("text, message", [
    ("name", "'name' is not 'key: value'.*no colon"),
    ("name: a", "'name: a' is not 'key: value' with a value as JSON"),
    ('name: "a"\nstages: []\nsead: 1', "unknown config key 'sead'. Did you mean 'seed'"),
    ("stages: []", r"missing config key\(s\): name")])
def test_a_text_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        from_text(RunConfig, text)
