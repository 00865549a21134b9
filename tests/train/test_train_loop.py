"""The loop: exact resume, clean stops, giving up in time."""

import gc
import itertools
import os
import signal
import weakref

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from guardjax.data.prompts import PromptError
from guardjax.train.compilation import CompilationCounter
from guardjax.train.guard import NonFiniteError
from guardjax.train.loop import DataEndedError
from guardjax.train.metrics import read_metrics
from guardjax.train.preemption import Preempted
from guardjax.train.state import Bundle


class Killed(BaseException):
    """Stands for a power cut: nothing in the code under test may catch it."""


def kill_at(step):
    def on_step(now):
        if now == step:
            raise Killed
    return on_step


def stages(toy, **second):
    return [toy.stage(name="one", num_steps=3), toy.stage(name="two", num_steps=6, **second)]


def outcome(folder, bundle):
    return (read_metrics(folder / "metrics.jsonl"), read_metrics(folder / "samples.jsonl"),
            read_metrics(folder / "groups.jsonl"), jax.device_get(bundle.params))


def assert_same(one, other):
    assert one[:3] == other[:3]
    jax.tree.map(np.testing.assert_array_equal, one[3], other[3])


@pytest.fixture(scope="module")
def straight(toy_of, tmp_path_factory):
    """A run of two stages that nothing interrupts, logging every two steps."""
    toy = toy_of(tmp_path_factory.mktemp("straight"))
    return outcome(toy.folder, toy.run(stages(toy), log_every=2))


def test_a_run_logs_every_window_and_trains_the_thawed_part(straight):
    metrics, samples, groups, params = straight
    assert [(line["stage"], line["step"]) for line in metrics] == [
        ("one", 2), ("one", 3), ("two", 5), ("two", 7), ("two", 9)]
    assert all(np.isfinite(line["loss"]) for line in metrics)
    assert [row["step"] for row in samples] == [3, 6, 9]
    # Every second step of a stage and its last one, two groups each.
    assert [(line["stage"], line["step"]) for line in groups] == [
        (stage, step) for stage, steps in (("one", (2, 3)), ("two", (5, 7, 9)))
        for step in steps for _ in range(2)]
    np.testing.assert_array_equal(params["visual"]["kernel"], np.eye(4))
    assert np.abs(params["model"]["kernel"]).max() > 0


@pytest.mark.parametrize("step, every", [(0, 2), (2, 2), (5, 3), (3, 100)])
def test_a_killed_run_goes_on_bit_by_bit(toy, tmp_path, straight, step, every):
    """Killed in the second stage: before its first checkpoint, after it, between two log lines."""
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        toy.run(stages(toy, on_step=kill_at(step)), folder=folder, every=every, log_every=2)
    bundle = toy.run(stages(toy), folder=folder, every=every, log_every=2)
    assert_same(outcome(folder, bundle), straight)


def test_a_restart_compiles_nothing_again(toy, tmp_path, straight):
    """Two compilations of one program need not agree in the last bit."""
    with CompilationCounter() as compiled:
        with pytest.raises(Killed):
            toy.run(stages(toy, on_step=kill_at(3)), log_every=2)
        toy.run(stages(toy), log_every=2)
    assert compiled.count == 0


def test_a_finished_run_stays_as_it_is(toy, tmp_path, straight):
    for _ in range(2):
        bundle = toy.run(stages(toy), log_every=2)
        assert_same(outcome(tmp_path, bundle), straight)
    assert "two: resumed at step 6" in toy.output


def test_a_run_killed_before_its_first_checkpoint_starts_over(toy, tmp_path, straight):
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        toy.run([toy.stage(name="one", num_steps=3, on_step=kill_at(2))], folder=folder,
                every=100, log_every=2)
    assert len(read_metrics(folder / "metrics.jsonl")) == 1
    assert_same(outcome(folder, toy.run(stages(toy), folder=folder, log_every=2)), straight)


def test_a_run_killed_inside_a_save_goes_on_from_the_one_before(toy, tmp_path, straight,
                                                                monkeypatch):
    folder, real = tmp_path / "killed", ocp.training.Checkpointer.save_checkpointables_async

    def torn(self, step, *args, **kwargs):
        if step == 6:
            (folder / "checkpoints" / "6.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
            raise Killed
        return real(self, step, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", torn)
        toy.run(stages(toy), folder=folder, log_every=2)
    bundle = toy.run(stages(toy), folder=folder, log_every=2)
    assert "ignored an incomplete checkpoint: 6.orbax-checkpoint-tmp" in toy.output
    assert "two: resumed at step 1" in toy.output
    assert_same(outcome(folder, bundle), straight)


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_text_that_is_too_long_keeps_the_steps_before_it(
        toy, tmp_path, straight, monkeypatch, step):
    """Found when a batch is made, which is made again at the next start."""
    folder, made = tmp_path / "long", itertools.count()
    make = toy.stage.init.__globals__

    def too_long(index, rng, example=make["toy_example"]):
        if next(made) == 4 * (3 + step) + 1:        # in a batch of four of the second stage
            raise PromptError("too long")
        return example(index, rng)

    with monkeypatch.context() as patch, pytest.raises(PromptError, match="too long"):
        patch.setitem(make, "toy_example", too_long)
        toy.run(stages(toy), folder=folder, every=100, log_every=2)
    bundle = toy.run(stages(toy), folder=folder, every=100, log_every=2)
    assert (f"two: resumed at step {step}" in toy.output) == (step > 0)
    assert_same(outcome(folder, bundle), straight)


def test_a_first_text_that_is_too_long_keeps_nothing(toy):
    """So that a config with a shorter one may have the folder."""
    def too_long(_):
        raise PromptError("too long")

    with pytest.raises(PromptError, match="too long"):
        toy.run([toy.stage(on_step=too_long)])
    assert not list(toy.folder.glob("checkpoints/*"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(toy, tmp_path, straight, signum):
    folder, before = tmp_path / "stopped", signal.getsignal(signum)

    def send(step):
        if step == 2:
            os.kill(os.getpid(), signum)

    with pytest.raises(Preempted) as stopped:
        toy.run(stages(toy, on_step=send), folder=folder, every=100, log_every=2)
    assert stopped.value.code == 128 + signum and signal.getsignal(signum) is before
    assert "two: asked to stop; saved step 6" in toy.output
    assert "two: compiling … (first step)" in toy.output
    bundle = toy.run(stages(toy), folder=folder, every=100, log_every=2)
    assert "two: resumed at step 3" in toy.output
    assert_same(outcome(folder, bundle), straight)


@pytest.mark.parametrize("every, step", [(100, 7), (2, 6)])
def test_a_run_without_finite_numbers_gives_up_with_its_state_kept(toy, tmp_path, every, step):
    """One step late, so as not to wait for the device; at once where a save waits anyway."""
    stage = toy.stage(num_steps=20, spoil=lambda step: step >= 3)
    with pytest.raises(NonFiniteError, match=f"'toy', step {step}: the last 3 updates") as error:
        toy.run([stage], every=every, max_bad=3, log_every=100)
    like = stage.init(Bundle(frozen=toy.params())).state
    kept = ocp.load(error.value.saved_at, jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like))
    assert np.isfinite(kept.params["model"]["kernel"]).all()
    assert kept.skipped >= 3 and kept.updates == 3
    assert error.value.count == 3 and error.value.saved_at.is_relative_to(tmp_path)


def test_the_limit_counts_steps_of_several_updates(toy):
    """One bad rollout of four updates is one bad step."""
    stage = toy.stage(num_steps=8, updates=4, spoil=lambda step: step < 4)
    toy.run([stage], max_bad=2)
    with pytest.raises(NonFiniteError, match="the last 8 updates"):
        toy.run([toy.stage(name="worse", num_steps=12, updates=4, spoil=lambda step: step < 9)],
                max_bad=2, every=100, folder=toy.folder / "worse")


def test_the_parameters_at_the_start_are_not_kept(toy):
    """A reference of their own to whole parameters would double what a big model takes."""
    start = [Bundle(frozen=toy.params())]
    trained = weakref.ref(jax.tree.leaves(start[0].frozen["model"])[0])
    alive = []

    def look(step):
        gc.collect()
        alive.append(trained() is not None)

    toy.run([toy.stage(num_steps=3, on_step=look)], start=start)
    assert alive[-1] is False


def test_a_few_bad_steps_are_skipped_and_counted(toy, tmp_path):
    stage = toy.stage(num_steps=6, spoil=lambda step: step in (1, 2, 4))
    toy.run([stage], log_every=2)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["skipped"] for line in metrics] == [0.5, 0.5, 0.5]
    assert all(np.isfinite(line["loss"]) for line in metrics)


def test_data_that_ends_early_is_an_error(toy):
    with pytest.raises(DataEndedError, match="'toy': the data ended after 6 of 9 steps"):
        toy.run([toy.stage(num_steps=9, repeats=1)])
