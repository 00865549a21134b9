"""What `guardjax train` refuses, before anything is trained."""

import pytest


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
    ("stages.0.optim.warmup_steps=50", "stages.0: optim.warmup_steps=50 is more than"),
])
def test_a_bad_value_is_named_with_its_key(refusal, override, message):
    assert message in refusal(override)


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
        guardjax, config_file, refusal, tmp_path):
    (tmp_path / "run").mkdir()
    refusal("base=nowhere", "seed=1")
    message = refusal("base=nowhere", "seed=2")
    assert "another config" in message and "-seed: 1\n+seed: 2" in message


def test_a_folder_that_is_a_file_is_refused(refusal, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file" in refusal(out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
