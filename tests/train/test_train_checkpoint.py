"""Checkpoints: whole or not at all, for their own config only, safe on a full disk."""

import errno
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from guardjax.train import jsonl
from guardjax.train.checkpoint import Checkpointer, CheckpointError, holds_state
from guardjax.train.config import CheckpointConfig, resolve, to_text
from guardjax.train.disk import DiskFullError
from guardjax.train.state import Bundle, Clock, init_state
from guardjax.train.workdir import (
    Claim,
    WorkdirError,
    check_workdir,
    claim_workdir,
    kept_base,
    release_workdir,
)

CONFIG = CheckpointConfig(every_steps=2, keep=2)


def bundle_at(step, width=3, value=0.0):
    # On a device, as a model's are: what is loaded takes over the sharding, which NumPy lacks.
    params = {"model": {"kernel": jnp.full((2, width), value, jnp.float32)}}
    state = init_state(params, optax.adam(1e-3), jax.random.key(step))
    return Bundle(frozen=params, state=state, clock=Clock(step=step, total=step),
                  extra={"note": None, "empty": {}, "list": [1, "a"]})


def test_state_key_and_host_state_come_back(tmp_path):
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert saver.peek() is None and saver.latest is None
        for step in (2, 4, 6):
            saver.save(bundle_at(step, value=step), {"metrics": step})
        saver.wait()
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["4", "6"]
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert saver.peek().writer == {"metrics": 6} and saver.peek().clock.total == 6
        back = saver.restore(bundle_at(0))
    assert back.clock == Clock(step=6, total=6)
    assert back.extra == {"note": None, "empty": {}, "list": [1, "a"]}
    np.testing.assert_array_equal(back.state.params["model"]["kernel"], np.full((2, 3), 6.0))
    assert jax.random.key_data(back.state.key).tolist() == [0, 6]
    assert jax.tree.structure(back.state) == jax.tree.structure(bundle_at(0).state)


def test_incomplete_steps_are_ignored_by_name(tmp_path):
    steps = tmp_path / "checkpoints"
    with Checkpointer(tmp_path, CONFIG) as saver:
        saver.save(bundle_at(2), {})
    (steps / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)   # a crash while saving
    (steps / "9" / "state").mkdir(parents=True)                        # a copy that broke off
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert saver.latest == 2
        assert saver.incomplete == ["4.orbax-checkpoint-tmp", "9"]
        saver.save(bundle_at(4), {})
        saver.save(bundle_at(9), {})
        assert saver.latest == 4        # the other is being written
        saver.wait()
        assert saver.latest == 9
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert saver.latest == 9 and saver.restore(bundle_at(0)).clock.total == 9


def test_another_model_is_refused_with_the_leaves_that_differ(tmp_path):
    with Checkpointer(tmp_path, CONFIG) as saver:
        with pytest.raises(CheckpointError, match="no complete checkpoint"):
            saver.restore(bundle_at(0))
        saver.save(bundle_at(2), {})
        with pytest.raises(CheckpointError, match=r"(?s)another run.*another arrays.*"
                                                  r"-params/model/kernel: float32\[2,3\].*"
                                                  r"\+params/model/kernel: float32\[2,5\]"):
            saver.restore(bundle_at(0, width=5))


def test_a_stage_starts_from_kept_parameters(tmp_path):
    bundle = bundle_at(2, value=7.0).replace(frozen={}).finished()
    with Checkpointer(tmp_path, CONFIG) as saver:
        like = bundle_at(0).frozen
        assert saver.load_stage_start(0, like) is like
        with pytest.raises(CheckpointError, match="params/1 is missing"):
            saver.load_stage_start(1, like)
        saver.save_stage_start(bundle.replace(clock=bundle.clock.next_stage()))
        back = saver.load_stage_start(1, like)
        with pytest.raises(CheckpointError, match="does not fit this model"):
            saver.load_stage_start(1, {"other": like["model"]})
    np.testing.assert_array_equal(back["model"]["kernel"], bundle.params["model"]["kernel"])


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write 99 bytes: No space left on device"),
])
def test_a_full_disk_is_named_and_costs_no_earlier_checkpoint(tmp_path, monkeypatch, error):
    with Checkpointer(tmp_path, CONFIG) as saver:
        saver.save(bundle_at(2), {})
        saver.wait()

        def full(*args, **kwargs):
            (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full)
            with pytest.raises(DiskFullError, match=r"is full: .*step 4; the checkpoint of step 2"):
                saver.save(bundle_at(4), {})
        assert os.listdir(tmp_path / "checkpoints") == ["2"]
        assert saver.restore(bundle_at(0)).clock.total == 2
        saver.save(bundle_at(4), {})
        saver.wait()
        assert saver.latest == 4


def test_a_full_disk_is_one_error_and_no_pages_of_log(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        logging.getLogger("absl").error("_SignalingThread.run() raised an exception")
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    with Checkpointer(tmp_path, CONFIG) as saver:
        with monkeypatch.context() as patch:
            patch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full)
            with pytest.raises(DiskFullError, match="there is no checkpoint yet"):
                saver.save(bundle_at(2), {})
    assert not caplog.records
    logging.getLogger("absl").error("what others say")
    assert caplog.records


def test_a_folder_holds_state_from_the_first_checkpoint_on(tmp_path):
    assert not holds_state(tmp_path)
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert not holds_state(tmp_path)
        saver.save(bundle_at(2), {})
    assert holds_state(tmp_path)


def test_other_failures_are_not_dressed_up(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", broken)
    with Checkpointer(tmp_path, CONFIG) as saver, pytest.raises(PermissionError):
        saver.save(bundle_at(2), {})


def test_a_full_disk_leaves_text_files_as_they_were(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = jsonl.JsonLinesFile(tmp_path / "a.jsonl")
    file.append({"step": 1})
    file.append({"step": 2})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"could not write .*a\.jsonl"):
            file.truncate(1)
    assert len(jsonl.read_jsonl(file.path)) == 2


def claim(base="a1", **changes):
    run = resolve({"name": "run", "stages": [{"kind": "sft", "steps": 4}]} | changes)
    return Claim(to_text(run), base)


def test_a_folder_belongs_to_one_config(tmp_path):
    folder = claim_workdir(tmp_path / "run", claim())
    assert claim_workdir(folder, claim()) == check_workdir(folder, claim()) == folder
    claim_workdir(folder, claim(checkpoint={"keep": 5}))
    for use in (check_workdir, claim_workdir):
        with pytest.raises(WorkdirError, match=r"(?s)another config.*\n-seed: 0\n\+seed: 1"):
            use(folder, claim(seed=1))
    assert "seed: 0\n" in (folder / "config.txt").read_text()


def test_an_engine_may_come_back_at_another_place(tmp_path):
    """Another engine is another run, and so is none: samples round otherwise."""
    def grpo(**rl):
        return claim(stages=[{"kind": "grpo", "steps": 4, "rl": {"correction": "token"} | rl}])

    folder = claim_workdir(tmp_path / "run", grpo(engine="vllm", engine_url="http://a:1"))
    check_workdir(folder, grpo(engine="vllm", engine_url="http://b:2", engine_seconds=9.0))
    for other in (grpo(engine="sglang", engine_url="http://a:1"), grpo()):
        with pytest.raises(WorkdirError, match="stages.0.rl.engine: "):
            check_workdir(folder, other)


def test_a_folder_belongs_to_one_starting_model(tmp_path):
    folder = claim_workdir(tmp_path / "run", claim("a1"))
    assert kept_base(folder) == "a1"
    release_workdir(claim_workdir(tmp_path / "other", claim("a1")))
    assert kept_base(claim_workdir(tmp_path / "other", claim("b2", seed=1))) == "b2"
    with pytest.raises(WorkdirError, match=r"run holds .* model a1, .* is b2 now; remove the fold"):
        check_workdir(folder, claim("b2"))
    (folder / "base.json").unlink()
    with pytest.raises(WorkdirError, match="from the model unknown"):
        check_workdir(folder, claim("a1"))


def test_a_folder_that_is_only_looked_at_stays_as_it_is(tmp_path):
    check_workdir(tmp_path / "run", claim())
    assert not list(tmp_path.iterdir()) and kept_base(tmp_path / "run") is None
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; choose another"):
        check_workdir(tmp_path / "file", claim())


def test_a_claim_broken_off_claims_nothing(tmp_path, monkeypatch):
    def full(source, target):
        if target.name == "config.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    replace = os.replace
    with monkeypatch.context() as patch, pytest.raises(DiskFullError):
        patch.setattr(os, "replace", full)
        claim_workdir(tmp_path, claim("a1"))
    assert kept_base(tmp_path) is None
    assert kept_base(claim_workdir(tmp_path, claim("b2"))) == "b2"
