"""The real stages on the shipped base: they run, learn, repeat and resume."""

import json

import numpy as np
import pytest

from guardjax.cli import compose, training
from guardjax.train.config import ConfigError
from guardjax.train.console import RunConsole
from guardjax.train.metrics import read_metrics
from guardjax.train.stages.exact import listed_answers
from guardjax.train.workdir import WorkdirError

SMALL = ["world.sizes={\"train\": 40, \"test\": 4}", "stages.0.batch=4",
         "stages.0.optim.warmup_steps=1", "log.every_steps=1"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def run(row: str, out, steps: int, *more: str):
    config = compose.load_config(
        f"configs/safeguard_vl/{row}.py", [*SMALL, f"stages.0.steps={steps}", *more])
    training.train(config, out, RunConsole(enabled=False))
    return read_metrics(out / "metrics.jsonl")


@pytest.mark.parametrize("row", [
    "sft_varied", pytest.param("bp_adapt_varied", marks=pytest.mark.slow),
    pytest.param("exact_l3", marks=pytest.mark.slow),
    pytest.param("grpo_varied", marks=pytest.mark.slow)])
def test_a_row_runs_and_repeats_bit_for_bit(row, tmp_path) -> None:
    first, second = (run(row, tmp_path / name, 3) for name in "ab")
    assert first == second and len(first) == 3
    assert all(line["skipped"] == 0 and np.isfinite(line["loss"]) for line in first)
    if row.startswith("grpo"):
        assert max(line["rollout/logp_gap"] for line in first) < 2e-5
    assert (tmp_path / "a/model/model.safetensors").is_file()


def test_every_key_is_written_and_another_config_refused_with_the_difference(tmp_path) -> None:
    run("sft_l3", tmp_path, 1)
    lines = (tmp_path / "config.txt").read_text().splitlines()
    keys = {line.split(":")[0]: json.loads(line.split(": ", 1)[1]) for line in lines}
    assert keys["stages.0.kind"] == "sft" and keys["seed"] == 0
    with pytest.raises(WorkdirError, match="stages.0.optim.lr"):
        run("sft_l3", tmp_path, 1, "stages.0.optim.lr=0.5")


def test_adapters_for_unknown_modules_are_refused_before_the_first_step(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"'q_porj'\. Did you mean 'q_proj'"):
        run("sft_l3", tmp_path, 1, "stages.0.lora.rank=4", "stages.0.lora.targets=v_proj,q_porj")
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_listed_answers_are_all_verdicts_and_differ() -> None:
    answers = listed_answers(("R1", "R2", "R3"))
    assert len(set(answers)) == 8
    assert answers[0] == "<answer>safe</answer>" and answers[-1].count("R") == 3
    with pytest.raises(ValueError, match="at most 5 rules"):
        listed_answers(tuple(f"R{i}" for i in range(6)))
