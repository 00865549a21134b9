"""Methods by name: what a preset fills in, what wins over it, how a resolved config shows it."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from guardjax.rl.losses import LossParams
from guardjax.train.config import ConfigError, RLConfig, resolve, to_text
from guardjax.train.config.presets import PRESETS


def resolved(rl, *overrides, kind="grpo"):
    config = {"name": "run", "stages": [{"kind": kind, "steps": 1, "rl": rl}]}
    return resolve(config, [f"stages.0.rl.{each}" for each in overrides]).stages[0].rl


def test_presets_fill_the_same_fields_with_allowed_values():
    hints = typing.get_type_hints(RLConfig)
    assert set(typing.get_args(hints["preset"])) == set(PRESETS)
    for name, choices in PRESETS.items():
        assert choices.keys() == PRESETS["default"].keys()
        rl = RLConfig(preset=name)
        assert {field: getattr(rl, field) for field in choices} == choices and rl.unlike == ()
        assert resolved({"preset": name}) == rl, "every value passes the checks of a config file"


def test_a_field_that_is_given_wins_and_is_named():
    rl = resolved({"preset": "dapo", "clip_high": 0.3, "kl_coef": 0.0}, "dynamic_sampling=false")
    assert (rl.clip_high, rl.clip_low, rl.aggregate) == (0.3, 0.2, "token_mean")
    assert rl.unlike == ("clip_high", "dynamic_sampling")
    text = to_text(rl)
    for line in ('preset: "dapo"', 'unlike: ["clip_high", "dynamic_sampling"]', "clip_high: 0.3",
                 'aggregate: "token_mean"'):
        assert line in text.splitlines()
    assert "null" not in text


def test_a_preset_on_the_command_line_leaves_what_the_file_says():
    rl = resolved({"clip_low": 0.1, "entropy_coef": 0.01}, "preset=gspo")
    assert (rl.ratio, rl.clip_low, rl.clip_high) == ("sequence", 0.1, 4e-4)
    assert rl.unlike == ("clip_low",) and rl.entropy_coef == 0.01


def test_resolving_what_is_resolved_changes_nothing():
    rl = resolved({"preset": "cispo", "clip_high": 3.0})
    assert resolved(dataclasses.asdict(rl)) == rl
    moved = dataclasses.replace(rl, preset="grpo")
    assert moved.ratio == "stop_gradient" and "ratio" in moved.unlike


def test_the_default_is_what_it_was():
    rl = RLConfig()
    assert (rl.kl_coef, rl.kl, rl.clip_low, rl.clip_high, rl.advantage_scale, rl.aggregate) == (
        0.01, "k3", 0.2, 0.2, "none", "constant")
    assert (rl.ratio, rl.baseline, rl.kl_in, rl.overlong, rl.correction, rl.updates) == (
        "token", "mean", "loss", "none", "none", 1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_loss(name):
    fields = {field.name for field in dataclasses.fields(LossParams)} & PRESETS[name].keys()
    LossParams(max_tokens=4, **{field: PRESETS[name][field] for field in fields})


@pytest.mark.parametrize("rl, message", [
    ({"preset": "ppo"}, "rl.preset must be one of 'default', 'grpo'"),
    ({"ratio": "gspo"}, "rl.ratio must be one of 'token'"),
    ({"clip_low": None}, "rl.clip_low must be float"),
    ({"kl_coef": -0.1}, "kl_coef must be >= 0"),
    ({"correction_cap": 0.0}, "correction_cap must be positive"),
    ({"overlong_buffer": 2.0}, "overlong_buffer is a share"),
    ({"epochs": 0}, "epochs must be >= 1"),
])
def test_bad_values_are_refused(rl, message):
    with pytest.raises(ConfigError, match=message):
        resolved(rl)


def test_several_updates_are_for_grpo():
    with pytest.raises(ConfigError, match="micro_batches=2 is not for kind 'sft'"):
        resolved({"micro_batches": 2}, kind="sft")
