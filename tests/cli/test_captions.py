"""Recaption to SFT: a folder of pictures, an assessor that is a fake server, a tiny model."""

import json
import pathlib

import jax
import numpy as np
import pytest

import guardjax.models as models
from guardjax.data.datasets.registry import open_dataset
from guardjax.train.metrics import read_metrics
from tests.data import dataset_files as files
from tests.pairs.fake_server import FakeServer, serving

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs/own_data/captions.py"
# The numbers of `conftest.STAGE`, whose programs other tests of this folder have compiled.
TINY = [f"stages.0.{change}" for change in (
    "steps=12", "batch=4", "optim.lr=0.01", "optim.warmup_steps=1", "freeze=visual")]


def test_a_recaption_is_what_sft_learns(guardjax, tiny_model, tmp_path):
    def say(picture, words, seed):
        bright = "bright" if picture.mean() > 127 else "dark"
        return f"a {bright} picture with a knife" if "Here is" in words else "a picture"

    for i in range(6):
        files.write_png(tmp_path / f"photos/p{i}.png", i)
    out, run = tmp_path / "captions", tmp_path / "run"
    with serving(FakeServer(say)) as url:
        assert guardjax("pairs", "recaption", "--pictures", tmp_path / "photos", "--out", out,
                        "--assessor-url", url, "--assessor-model", "m", "--kept",
                        tmp_path / "kept") == 0
    assert guardjax("data", "check", "--format", "captions", out) == 0
    reader = open_dataset("captions", out)
    assert len({record.caption for record in reader.records}) == 2
    words = ("train", "--config", CONFIG, "--out", run, f"base={tiny_model}",
             f"dataset.dir={out}", "log.every_steps=1", *TINY)
    assert guardjax(*words) == 0
    metrics = read_metrics(run / "metrics.jsonl")
    assert len(metrics) == 12 and {line["stage"] for line in metrics} == {"sft"}
    assert all(line["skipped"] == 0 and line["grad_norm"] > 0 for line in metrics)
    # Two captions over and over: even this model learns to say them.
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    before, after = (models.load_hf(path)[1]["model"] for path in (tiny_model, run / "model"))
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after))
    assert all(value > 0 for value in moved)
    # The folder of a run belongs to its captions.
    rows = (out / "metadata.jsonl").read_text().splitlines()
    rows[0] = json.dumps(json.loads(rows[0]) | {"caption": "another"})
    (out / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    assert guardjax(*words) == 2


@pytest.mark.parametrize("overrides, message", [
    (["stages.0.kind=grpo", 'stages.0.data={"judge": 1}'],
     "over captions is of kind sft, not 'grpo'"),
    (["stages.0.data.judge=1"], 'prompts of kind caption only, not caption, judge: set data to '
                                '{"caption": 1}'),
    (["stages.0.think=true"], "think=True puts a rationale before a verdict"),
    (["stages.0.policies=L3"], "policies='L3' chooses policies of the world"),
    (["dataset.policy=house.yaml"], "policy='house.yaml' is about verdicts"),
    (["dataset.report=test"], "report='test' is about verdicts"),
    (["dataset.flips=0.2"], "flips=0.2 is about verdicts"),
    (["dataset.split=dev"], "captions have no split 'dev'"),
    (["dataset.dir=nowhere"], "dataset: there is no folder nowhere"),
])
def test_what_captions_do_not_have_is_refused(guardjax, tmp_path, capsys, overrides, message):
    files.captions(tmp_path / "captions")
    assert guardjax("train", "--config", CONFIG, "--out", tmp_path / "run",
                    f"dataset.dir={tmp_path / 'captions'}", *overrides) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
