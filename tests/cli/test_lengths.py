"""Lengths of a run: what is too long ends one that can go on, and its model keeps them."""

import dataclasses
import json
import re
import shutil

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


@pytest.mark.parametrize(("kind", "of_base", "overrides", "limit"), [
    ("grpo", 32, [], 32), ("grpo", 32, ["lengths.answer=12,24"], 32),
    ("grpo", 32, ["lengths.answer=24,64"], 64), ("grpo", 32, ["stages.0.rl.max_tokens=40"], 40),
    ("grpo", 32, ["stages.0.rl.max_tokens=500", "lengths.answer=24,64"], 500),
    # From captions to verdicts: as the run says, else the captions stay whole.
    ("sft", 768, ["lengths.answer=24,64"], 64), ("sft", 768, ["lengths.answer=12,24"], 32),
    ("sft", 768, [], 768), ("sft", 768, ["lengths.prompt=128,256"], 768),
    # From verdicts to a little more of them.
    ("sft", 32, [], 32), ("sft", 8, [], 8), ("sft", 96, ["stages.0.steps=2"], 96),
    # What GRPO samples is of its own prompts, and says nothing of captions.
    ("grpo", 768, [], 768), ("grpo", 768, ["stages.0.rl.max_tokens=40"], 768),
    ("grpo", 768, ["stages.0.rl.max_tokens=40", "lengths.answer=12,24"], 40),
    ("exact", 96, [], 96)])
def test_a_guard_may_write_what_its_run_says_or_its_base_could(
        tiny_model, kind, of_base, overrides, limit):
    """Sampled answers need no bucket; the shipped limit stands where a run asks for less."""
    run = resolve({"name": "a", "stages": [{"kind": kind, "steps": 1}]}, overrides)
    batcher = dataclasses.replace(load_batcher(tiny_model), answer_limit=of_base)
    found = with_lengths(batcher, run, read_config(tiny_model))
    assert found.answer_limit == limit
    assert found.answer_buckets == (run.lengths.answer or batcher.answer_buckets)


@pytest.mark.parametrize(("overrides", "kept"), [
    ([], {"answer": [192, 768], "answer_limit": 768}),
    (["lengths.answer=12,24,48"], {"answer_limit": 48})])
def test_verdicts_after_captions_keep_what_the_run_says(
        guardjax, tiny_model, tmp_path, capsys, overrides, kept):
    captions = tmp_path / "captions"
    shutil.copytree(tiny_model, captions)
    (captions / LENGTHS_FILE).write_text('{"answer": [192, 768], "answer_limit": 768}')
    config = write_sft(tmp_path, captions, steps=0, optim={})
    assert guardjax("train", "--config", config, "--out", tmp_path / "run", *overrides) == 0
    assert json.loads((tmp_path / "run/model" / LENGTHS_FILE).read_text()) == kept
    said = "the base may write 768 tokens, this run's guard 48, as lengths.answer says"
    assert (said in " ".join(capsys.readouterr().err.split())) == bool(overrides)
