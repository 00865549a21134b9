"""`guardjax train` with an engine, from the config to the trained model."""

import socket

import pytest

from guardjax.cli import main
from guardjax.cli.assets import model_dir
from guardjax.train.metrics import read_metrics
from .fake_engine import running

SMALL = ["world.sizes={\"train\": 40, \"test\": 4}", "stages.0.batch=2", "stages.0.steps=2",
         "stages.0.optim.warmup_steps=0", "log.every_steps=1", "stages.0.rl.group_size=2",
         "stages.0.rl.correction=token"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def train(out, kind, url, *more):
    return main.main(["train", "--config", "configs/safeguard_vl/grpo_varied.py", "--out", str(out),
                      *SMALL, f"stages.0.rl.engine={kind}", f"stages.0.rl.engine_url={url}", *more])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_row_trains_with_an_engine(kind, tmp_path, capsys):
    with running(kind, model_dir("base")) as fake:
        assert train(tmp_path, kind, fake.url) == 0
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert len(lines) == 2 and max(line["rollout/logp_gap"] for line in lines) < 1e-4
    assert all(line["skipped"] == 0 for line in lines)
    assert (tmp_path / "model/model.safetensors").is_file()
    assert not list((tmp_path / "engine").glob("*/*"))


def test_no_engine_no_training(tmp_path, capsys):
    """One line that names it, the status of a run that gave up, and a folder that is nobody's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert train(tmp_path / "run", "vllm", f"http://127.0.0.1:{port}") == 1
    said = capsys.readouterr().err
    assert f"engine vllm at http://127.0.0.1:{port} does not answer" in said
    assert "start it first" in said and not (tmp_path / "run" / "config.txt").exists()
