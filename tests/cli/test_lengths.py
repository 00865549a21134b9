"""Lengths that a run changes: what is too long ends a run that can go on, and a model keeps them."""

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
from guardjax.types import PolicyExample
from .conftest import STAGE, write_config

LONG = ("schema: 1\nid: long\nversion: '1'\ntitle: Long\nrules:\n"
        f"  - {{id: R1, when: weapons, wordings: [no weapons{' and no knife' * 200}]}}\n")


def write_sft(folder, model, **changes):
    """A config file of one short stage of SFT."""
    return write_config(folder / "sft.py", name="lengths", base=str(model), stages=[
        {"kind": "sft", "policies": "L3"} | STAGE | changes])


def test_an_answer_too_long_ends_a_run_that_goes_on_with_larger_lengths(
        guardjax, tiny_model, tmp_path, capsys):
    """Verdicts fit, captions do not: the first of them comes after some steps."""
    config = write_sft(tmp_path, tiny_model, steps=8, data={"judge": 0.7, "caption": 0.3}, seed=8)
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert guardjax("train", "--config", config, "--out", straight) == 0
    words = ("train", "--config", config, "--out", run)
    assert guardjax(*words, "lengths.answer=8") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    message = said[said.index("guardjax train:"):]
    assert re.match(r"guardjax train: example \S+/caption: its answer has \d+ tokens", message)
    assert "the limit is 8" in message and message.count("\n") == 1
    saved = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert 1 <= saved < 8 and saved % 4, "the step before is kept, between two checkpoints, too"
    assert not (run / "model").exists()
    assert guardjax(*words, re.search(r"lengths\.answer=[\d,]+", message).group()) == 0
    assert f"resumed at step {saved}" in capsys.readouterr().err
    losses = [[line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
              for folder in (run, straight)]
    np.testing.assert_allclose(*losses, rtol=1e-4)      # padding is masked
    assert len(losses[0]) == 8


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
    statuses, texts = {}, {}
    for name, folder in (("trained", tmp_path / "exported"), ("base", tiny_model)):
        out = tmp_path / f"{name}.jsonl"
        guardjax("judge", tmp_path / "black.png", "--policy", tmp_path / "long.yaml", "--model",
                 folder, "--out", out, "--batch-size", 1)
        records = [json.loads(line) for line in out.read_text().splitlines()]
        record = next(record for record in records if "picture" in record)
        statuses[name] = record["status"]
        texts[name] = guard.Guard.load(folder, batch=1).answer_examples([PolicyExample(
            "word", "judge", "safe?", "R1: no knife.")])[0].text
    assert statuses["base"] == "error:E_PROMPT" and "error" not in statuses["trained"]
    # Neither model has learnt to end.
    lengths = {name: len(load_batcher(tiny_model).tokenizer.untrusted(text))
               for name, text in texts.items()}
    assert lengths["base"] <= 32 < 100 < lengths["trained"] <= 160


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
