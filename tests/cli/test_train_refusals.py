"""What `guardjax train` refuses, before anything is trained."""

import pytest

from guardjax.cli import compose, training
from guardjax.eval.guard import weights_hash
from guardjax.train import hosts, loggers
from guardjax.train.config import ConfigError
from guardjax.train.workdir import claim_workdir


@pytest.fixture(name="refusal")
def _refusal(guardjax, config_file, tmp_path, capsys):
    """Runs with overrides and returns the message, which must come with status 2."""
    def refusal(*overrides, config=config_file, out=tmp_path / "run"):
        assert guardjax("train", "--config", config, "--out", out, *overrides) == 2
        assert not list(tmp_path.glob("run/checkpoints/*"))
        _, found, message = capsys.readouterr().err.partition("guardjax train: ")
        assert found
        return message
    return refusal


@pytest.fixture(name="trained")
def _trained(config_file, tmp_path):
    """`tmp_path / "run"` belongs to a run of the config with seed 1."""
    return claim_workdir(
        tmp_path / "run", compose.claim_of(compose.load_config(config_file, ["seed=1"])))


@pytest.mark.parametrize("override, message", [
    ("stages.0.stpes=2", "unknown config key 'stages.0.stpes'. Did you mean 'stages.0.steps'?"),
    ("stages.0.optim.lr=fast", "stages.0.optim.lr must be float, got 'fast'"),
    ("stages.0.batch=0", "batch must be >= 1, got 0"),
    ("seed", "an override looks like key.path=value, got 'seed'"),
    ("base=nowhere", "base: nowhere"),
    ("world.sizes.trian=3", "world: split 'trian' does not exist; choose from train"),
    ("stages.1.policies=L9", "stages.1: policies='L9'"),
    ("stages.0.batch=3", "stages.0: batch=3 is odd"),
    ("stages.0.freeze=visul", "stages.0: unknown parameter group in freeze 'visul'. Did you mean"),
    ("stages.1.rl.reward=mine", "stages.1: unknown reward 'mine'; known are"),
    ("mesh.data=2", "mesh: mesh.rules='single' uses one device"),
    ("mesh.rules=fsdp mesh.fsdp=3", "mesh: mesh data=1 * fsdp=3 * tensor=1 does not fit 1 device"),
    ("log.wandb_project=mine", "log.wandb_project='mine' needs the package wandb: pip install"),
    ("checkpoint.best_mode=min", "checkpoint: best_mode='min' and best_keep=1 are for a"),
    ("lengths.answer=24,12", "lengths: answer must be positive lengths that ascend, each once"),
    ("lengths.prompt=128,4097",
     "lengths.prompt: 4097 tokens are more than the base has positions for, which are 4096"),
    ("stages.0.optim.warmup_steps=50", "stages.0: optim.warmup_steps=50 is more than"),
])
def test_a_bad_value_is_named_with_its_key(refusal, tmp_path, override, message, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)    # as if no extra was there
    assert message in refusal(*override.split())
    # Nothing that would refuse the corrected config.
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text, message", [
    (None, "config.py does not exist; try configs/"),
    ("STEPS = 3\n", "config.py does not define get_config()"),
    ("def get_config():\n    return {'name': 'a', 'stagse': []}\n",
     "unknown config key 'stagse'. Did you mean 'stages'?"),
    ("def get_config():\n    return {'name': 'a'}\n", "missing config key(s): stages"),
    ("def get_config():\n    return 3\n", "a config must be a mapping, got int"),
])
def test_a_bad_config_file_is_named(refusal, tmp_path, text, message):
    file = tmp_path / "config.py"
    if text is not None:
        file.write_text(text)
    assert message in refusal(config=file)


def test_a_folder_of_another_config_is_refused_with_the_difference(
        trained, refusal):
    message = refusal("seed=2")
    assert "another config" in message and "-seed: 1\n+seed: 2" in message


def test_a_folder_of_another_starting_model_is_refused_with_both_hashes(
        trained, refusal, tiny_model, monkeypatch):
    monkeypatch.setattr(compose, "weights_hash", lambda path: "another")
    message = refusal("seed=1")
    assert f"{trained} holds a run that started from the model " in message
    assert f"{weights_hash(tiny_model)}, and the model to start from is another now" in message
    assert "remove the folder to train again, choose another one" in message


def test_a_folder_that_is_a_file_is_refused(refusal, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file" in refusal(out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_policy_longer_than_the_context_is_refused_and_the_folder_stays_free(
        guardjax, config_file, tmp_path, capsys):
    """Seen with the first batch only, when the folder is the run's already."""
    (tmp_path / "long.yaml").write_text(
        "schema: 1\nid: long\nversion: '1'\ntitle: Long\nrules:\n"
        f"  - {{id: R1, when: weapons, wordings: [no weapons{' and no knife' * 300}]}}\n")
    status = guardjax("train", "--config", config_file, "--out", tmp_path / "run",
                      f"stages.0.policies={tmp_path / 'long.yaml'}")
    message = capsys.readouterr().err
    assert status == 2 and "the limit is 512" in message and "Nothing is truncated" in message
    assert "shorten the policy, or train with lengths.prompt=128,512,768,1024" in message
    assert not (tmp_path / "run" / "config.txt").exists()


@pytest.mark.parametrize("change, message", [
    ({"feature_cache": True, "freeze": ("visual",)},
     "stages.0.feature_cache: not over 2 processes: each process would encode the pictures"),
    ({"rl": {"engine": "vllm", "engine_url": "http://localhost:1", "correction": "token"}},
     "stages.0.rl.engine: not over 2 processes: an engine is handed whole weights by one"),
])
def test_what_one_process_does_by_itself_is_refused_over_several(change, message, monkeypatch):
    run = compose.resolve({"name": "run", "stages": [{"kind": "grpo", "steps": 1} | change]})
    training._check_alone(run)
    monkeypatch.setattr(hosts, "num_processes", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        training._check_alone(run)


def test_data_sets_and_many_policies_are_for_several_processes_too(monkeypatch, tmp_path):
    monkeypatch.setattr(hosts, "num_processes", lambda: 2)
    stage = {"kind": "grpo", "steps": 1}
    training._check_alone(compose.resolve(
        {"name": "run", "stages": [stage], "dataset": {"format": "own", "dir": str(tmp_path)}}))
    training._check_alone(compose.resolve(
        {"name": "run", "stages": [stage | {"policies_per_image": 2}]}))
