"""Real processes, killed with SIGKILL while they train SFT and GRPO, end as if nobody had."""

import json
import os
import subprocess
import sys

import pytest


def killed(config_file, folder, num, seed):
    """What `killed_runs` reports; worlds and compiled programs are those of the test run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.killed_runs", str(config_file), str(folder), str(num),
         str(seed)], capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    logs = "".join(file.read_text() for file in sorted(folder.glob("*/log.txt")))
    assert done.returncode == 0, done.stderr[-3000:] + logs[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_two_kills_leave_no_trace(config_file, tmp_path):
    """One between steps, one while a checkpoint is written."""
    report = killed(config_file, tmp_path, 2, seed=1)
    assert report["kills"] == 2 and report["equal"] == report["runs"] >= 1, report
    assert report["resumed"] >= 1, report


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_kills_leave_no_trace(config_file, tmp_path):
    report = killed(config_file, tmp_path, 20, seed=2)
    assert report["kills"] == 20 and report["equal"] == report["runs"], report
    assert report["resumed"] >= 10, report
    assert report["torn"] >= 3, report                       # inside an asynchronous save
    assert min(report["at"]) <= 12 < max(report["at"]), report      # in SFT, and in GRPO
