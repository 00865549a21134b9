"""A step that never ends is said, with where it stands, and ended with a status of its own."""

import os
import subprocess
import sys
import time

import pytest

from guardjax.train.config import ConfigError, GuardConfig, resolve
from guardjax.train.watchdog import HUNG, HangWatchdog

HANGS = """
import pathlib, sys, threading, time
from guardjax.train.config import GuardConfig
from guardjax.train.phases import TimeLedger
from guardjax.train.watchdog import HangWatchdog

def wait_for_a_server_that_is_silent():
    time.sleep(600)

ledger = TimeLedger()
config = GuardConfig(hang_seconds=0.3, hang_exit_seconds=1.2)
with HangWatchdog(config, pathlib.Path(sys.argv[1]), lambda: ledger.where) as watchdog:
    watchdog.step_done("grpo, step 7")
    with ledger.phase("update"), ledger.phase("rewards"):
        wait_for_a_server_that_is_silent()
"""


def test_a_hang_is_said_and_ended_with_where_it_stands(tmp_path):
    done = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True,
                          text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == HUNG == 75
    report = (tmp_path / "hang.txt").read_text()
    for text in (done.stderr, report):
        assert "no step has ended for" in text and "(guard.hang_seconds=0.3)" in text
        assert "ending the process with status 75. The same command goes on" in text
        assert text.count("Newest: grpo, step 7. Now in: update/rewards.") == 2
        assert text.count("in wait_for_a_server_that_is_silent") == 2
        assert text.count("; the process is ended after 1.2 s") == 1


def watch(tmp_path, config, seconds, beat):
    left = []
    with HangWatchdog(config, tmp_path, lambda: "update", leave=left.append) as watchdog:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            if beat:
                watchdog.step_done("sft, step 1")
    return left


def test_steps_that_end_are_no_hang(tmp_path, capfd):
    config = GuardConfig(hang_seconds=2.0, hang_exit_seconds=4.0)
    assert watch(tmp_path, config, 1.0, beat=True) == []
    assert capfd.readouterr().err == "" and not (tmp_path / "hang.txt").exists()


@pytest.mark.parametrize("first, last, told, left", [
    (0.1, 0.0, True, False), (0.0, 0.0, False, False), (0.0, 0.2, True, True)])
def test_zero_switches_a_limit_off(tmp_path, capfd, first, last, told, left):
    config = GuardConfig(hang_seconds=first, hang_exit_seconds=last)
    assert watch(tmp_path, config, 1.0, beat=False) == ([HUNG] if left else [])
    assert capfd.readouterr().err.count("no step has ended") == told


def test_a_folder_that_is_gone_does_not_hide_the_hang(tmp_path, capfd):
    config = GuardConfig(hang_seconds=0.1, hang_exit_seconds=0.0)
    watch(tmp_path / "gone", config, 0.6, beat=False)
    said = capfd.readouterr().err
    assert "no step has ended" in said and "could not write hang.txt" in said


@pytest.mark.parametrize("change, message", [
    ("guard.hang_seconds=-1", "hang_seconds must be >= 0, got -1"),
    ("guard.hang_seconds=5000", "hang_seconds=5000 is more than hang_exit_seconds=3600"),
])
def test_bad_limits_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "a", "stages": ({"kind": "sft", "steps": 1},)}, [change])
