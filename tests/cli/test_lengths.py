"""Lengths of a run: what is too long ends one that can go on, and its model keeps them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from guardjax.cli.run_lengths import with_lengths
from guardjax.data.batching import load_batcher
from guardjax.data.lengths import LENGTHS_FILE
from guardjax.eval import guard
from guardjax.models.hf_weights import read_config
from guardjax.train.config import resolve
from guardjax.train.metrics import read_metrics
from .conftest import STAGE, write_config

LONG = ("schema: 1\nid: long\nversion: '1'\ntitle: Long\nrules:\n"
        f"  - {{id: R1, when: weapons, wordings: [no weapons{' and no knife' * 140}]}}\n")


def write_sft(folder, model, **changes):
    """A config file of one short stage of SFT."""
    return write_config(folder / "sft.py", name="lengths", base=str(model), stages=[
        {"kind": "sft", "policies": "L3"} | STAGE | changes])


@pytest.mark.slow
def test_an_answer_too_long_ends_a_run_that_goes_on_with_larger_lengths(
        guardjax, tiny_model, tmp_path, capsys):
    """Verdicts fit, captions do not: the first of them comes after some steps."""
    config = write_sft(tmp_path, tiny_model, steps=5, data={"judge": 0.7, "caption": 0.3}, seed=8)
    run = tmp_path / "run"
    words = ("train", "--config", config, "--out", run)
    assert guardjax(*words, "lengths.answer=8") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    message = said[said.index("guardjax train:"):]
    assert re.match(r"guardjax train: example \S+/caption: its answer has \d+ tokens", message)
    assert "the limit is 8" in message and message.count("\n") == 1
    kept = [path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    assert kept == ["3"], "the step before is kept, between two checkpoints, too"
    assert not (run / "model").exists()
    assert guardjax(*words, re.search(r"lengths\.answer=[\d,]+", message).group()) == 0
    assert "sft: resumed at step 3" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert not (run / "model" / LENGTHS_FILE).exists(), "nothing beyond the usual was asked for"


@pytest.mark.slow
def test_a_model_can_be_asked_as_it_was_trained(guardjax, tiny_model, tmp_path, monkeypatch):
    """A policy of 600 tokens and answers of 160, with no config in sight; not so before."""
    monkeypatch.setattr(guard, "load_batcher", load_batcher)    # with the folder's own lengths
    (tmp_path / "long.yaml").write_text(LONG)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    config = write_sft(tmp_path, tiny_model, steps=2, policies=str(tmp_path / "long.yaml"))
    assert guardjax("train", "--config", config, "--out", tmp_path / "run",
                    "lengths.prompt=128,700", "lengths.answer=24,160") == 0
    model = tmp_path / "run" / "model"
    assert json.loads((model / LENGTHS_FILE).read_text()) == {
        "prompt": [700], "answer": [160], "answer_limit": 160}
    assert guardjax("export", model, "--out", tmp_path / "exported") == 0
    found = {}
    for name, folder in (("trained", tmp_path / "exported"), ("base", tiny_model)):
        out = tmp_path / f"{name}.jsonl"
        guardjax("judge", tmp_path / "black.png", "--policy", tmp_path / "long.yaml", "--model",
                 folder, "--out", out, "--batch-size", 1, "--quiet")
        records = [json.loads(line) for line in out.read_text().splitlines()]
        found[name] = next(record for record in records if "picture" in record)
    assert found["base"]["status"] == "error:E_PROMPT"
    assert "error" not in found["trained"]["status"]
    # It has not learnt to end: what it says is cut, not by the usual 32 tokens.
    text, = found["trained"]["outputs"]
    assert len(load_batcher(model).tokenizer.untrusted(text)) > 100


@pytest.mark.parametrize(("overrides", "limit"), [
    ([], 32), (["lengths.answer=12,24"], 32), (["lengths.answer=24,64"], 64),
    (["stages.0.rl.max_tokens=40"], 40),
    (["stages.0.rl.max_tokens=500", "lengths.answer=24,64"], 500)])
def test_a_guard_may_write_what_a_stage_let_it_write(tiny_model, overrides, limit):
    """Sampled answers need no bucket; the shipped limit stands where nothing asks for more."""
    run = resolve({"name": "a", "stages": [{"kind": "grpo", "steps": 1}]}, overrides)
    batcher = load_batcher(tiny_model)
    found = with_lengths(batcher, run, read_config(tiny_model))
    assert found.answer_limit == limit
    assert found.answer_buckets == (run.lengths.answer or batcher.answer_buckets)
