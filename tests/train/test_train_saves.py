"""Saves while the loop goes on, the best beside the newest, and strangers that are refused."""

import errno
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from guardjax.models.tiny import tiny_config
from guardjax.train.best import BestMetric
from guardjax.train.checkpoint import Checkpointer, CheckpointError
from guardjax.train.config import CheckpointConfig, ConfigError, StageConfig, resolve
from guardjax.train.disk import DiskFullError
from guardjax.train.identity import difference, identity_of
from guardjax.train.state import Bundle, Clock, init_state

CONFIG = CheckpointConfig(every_steps=1, keep=2)


def bundle_at(step, gate=None, value=0.0, stage=0):
    params = {"kernel": jnp.full((64, 64), value, jnp.float32)}
    return Bundle(frozen={}, state=init_state(params, optax.sgd(1e-3), jax.random.key(0)),
                  data_iterator=gate, clock=Clock(stage=stage, step=step, total=step))


class Gate:
    """A data iterator that holds its writing back, or lets it fail."""

    def __init__(self):
        self.open, self.error = threading.Event(), None

    async def save(self, directory):
        async def write():
            folder = await directory.await_creation()
            self.open.wait(30)
            if self.error:
                raise self.error
            (folder / "position").write_text("1")
        return write()

    async def load(self, directory):
        async def read():
            assert (directory / "position").read_text() == "1"
        return read()


@pytest.fixture(name="gate")
def _gate():
    return Gate()


def test_the_loop_goes_on_while_a_save_is_written(tmp_path, gate):
    """What is written is the state as it was, though its buffers were given to the next step."""
    update = jax.jit(lambda state: state.replace(
        params=jax.tree.map(lambda leaf: leaf + 1, state.params)), donate_argnums=0)
    with Checkpointer(tmp_path, CONFIG) as saver:
        bundle = bundle_at(1, gate, value=7.0)
        saver.save(bundle, {})
        for _ in range(3):
            bundle = bundle.replace(state=update(bundle.state))
        jax.block_until_ready(bundle.state)
        assert saver.latest is None         # nothing is there before all of it is
        assert [name for name in os.listdir(tmp_path / "checkpoints") if name.isdigit()] == []
        gate.open.set()
        saver.wait()
        assert saver.latest == 1
        back = saver.restore(bundle_at(0, gate))
    np.testing.assert_array_equal(back.state.params["kernel"], np.full((64, 64), 7.0))


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    with Checkpointer(tmp_path, CONFIG) as saver:
        saver.save(bundle_at(1, gate), {})
        second = threading.Thread(target=saver.save, args=(bundle_at(2, gate), {}))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        gate.open.set()
        second.join(30)
        saver.wait()
        assert saver.latest == 2


@pytest.mark.parametrize("when", ["next save", "end"])
@pytest.mark.parametrize("error, raised", [
    (OSError(errno.ENOSPC, "No space left on device"), DiskFullError),
    (PermissionError(errno.EACCES, "no"), PermissionError),
])
def test_an_error_in_the_background_is_raised(tmp_path, gate, when, error, raised):
    gate.open.set()
    with pytest.raises(raised), Checkpointer(tmp_path, CONFIG) as saver:
        saver.save(bundle_at(1, gate, value=1.0), {})
        saver.wait()
        gate.error = error
        saver.save(bundle_at(2, gate), {})        # copied, not yet written
        if when == "next save":
            saver.save(bundle_at(3, gate), {})
    with Checkpointer(tmp_path, CONFIG) as saver:
        assert saver.latest == 1        # what is left of the other is ignored by name
        gate.error = None
        saver.save(bundle_at(4, gate), {})
        saver.wait()
        assert saver.latest == 4


def test_a_failed_save_is_not_lost_behind_another_error(tmp_path, gate):
    gate.error = PermissionError(errno.EACCES, "not yours")
    with pytest.raises(KeyError) as raised, Checkpointer(tmp_path, CONFIG) as saver:
        saver.save(bundle_at(1, gate), {})
        gate.open.set()
        raise KeyError("first")
    assert any("not yours" in note for note in raised.value.__notes__)


# --- the best ------------------------------------------------------------------------------------

def save_with(saver, step, value, stage=0):
    for count in (1, 2):        # over all steps since the checkpoint before, weighed
        saver.best_metric.observe({"right": (jnp.float32(value * count), count)}, True)
    saver.save(bundle_at(step, stage=stage), {})


@pytest.mark.parametrize("mode, kept", [("max", [3, 5, 6]), ("min", [1, 5, 6])])
def test_the_best_are_kept_beside_the_newest(tmp_path, mode, kept):
    config = CheckpointConfig(every_steps=1, keep=2, best_metric="right", best_mode=mode)
    with Checkpointer(tmp_path, config) as saver:
        for step, value in enumerate([0.1, 0.5, 0.9, 0.3, 0.4, 0.6], start=1):
            save_with(saver, step, value)
        saver.wait()
        assert saver.best == (kept[0], pytest.approx({"max": 0.9, "min": 0.1}[mode]))
    assert sorted(map(int, os.listdir(tmp_path / "checkpoints"))) == kept
    with Checkpointer(tmp_path, config) as saver:       # as it is read from the files
        assert saver.best[0] == kept[0] and saver.latest == 6


def test_a_later_stage_is_better_and_nothing_measured_is_not_kept(tmp_path):
    config = CheckpointConfig(every_steps=1, keep=1, best_metric="right", best_keep=2)
    with Checkpointer(tmp_path, config) as saver:
        save_with(saver, 1, 0.9)
        save_with(saver, 2, 0.2, stage=1)
        save_with(saver, 3, 0.1, stage=1)
        save_with(saver, 4, np.nan, stage=1)
        saver.save(bundle_at(5, stage=1), {})
    assert sorted(map(int, os.listdir(tmp_path / "checkpoints"))) == [2, 3, 5]


def test_a_metric_that_is_not_there_is_named_with_the_nearest():
    best = BestMetric(CheckpointConfig(best_metric="rollout/rigth"))
    best.observe({"loss": (1.0, 1)}, last_stage=False)
    with pytest.raises(ConfigError, match="best_metric 'rollout/rigth'. Did you mean 'rollout/"):
        best.observe({"loss": (1.0, 1), "rollout/right": (1.0, 1)}, last_stage=True)


@pytest.mark.parametrize("change, message", [
    ("checkpoint.best_mode=min", "for a best_metric, and none is named"),
    ("checkpoint.best_keep=0", "best_keep must be >= 1, got 0"),
    ("checkpoint.best_mode=most", "best_mode must be one of 'max', 'min'"),
])
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "a", "stages": ({"kind": "sft", "steps": 1},)}, [change])


# --- strangers -----------------------------------------------------------------------------------

def identity(width=64, tokenizer="aa", steps=3, lines=("seed: 1",)):
    cfg = tiny_config(256)
    cfg = cfg if width == 64 else tiny_config(width)
    return identity_of(cfg, tokenizer, [StageConfig("sft", steps)], lines)


@pytest.mark.parametrize("change, named", [
    ({"width": 512}, ["another model config", "-text.vocab_size: 256", "+text.vocab_size: 512",
                      "start from the model"]),
    ({"tokenizer": "bb"}, ["another tokenizer", "-sha256 aa", "+sha256 bb", "token ids mean"]),
    ({"steps": 4}, ["another stages", "-0: sft (sft, 3 steps)", "+0: sft (sft, 4 steps)"]),
    ({"lines": ("seed: 2",)}, ["another config", "-seed: 1", "+seed: 2", "old config"]),
])
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path, change, named):
    with Checkpointer(tmp_path, CONFIG, identity()) as saver:
        saver.save(bundle_at(1), {})
    with Checkpointer(tmp_path, CONFIG, identity()) as saver:
        assert saver.peek().clock.total == 1
    with Checkpointer(tmp_path, CONFIG, identity(**change)) as saver:
        with pytest.raises(CheckpointError, match="is of another run") as raised:
            saver.peek()
    assert all(part in str(raised.value) for part in named)
    assert str(raised.value).count("(- checkpoint, + this run)") == 1


def test_equal_runs_do_not_differ_in_how_they_compute():
    cfg = tiny_config(256)
    one = identity_of(cfg, "aa", [], [])
    import dataclasses
    other = identity_of(dataclasses.replace(cfg, remat="full"), "aa", [], [])
    assert difference(one, other) == ""
