"""Whatever stops a verb ends in one line and a status, or is raised as it is."""

import errno

import pytest

from guardjax.cli.stopped import told
from guardjax.data.prompts import PromptError
from guardjax.rl.engine import EngineError
from guardjax.train.config import ConfigError
from guardjax.train.preemption import Preempted

FULL = OSError(errno.ENOSPC, "No space left on device")


def raising(error):
    def work():
        raise error
    return work


@pytest.mark.parametrize("error, status, message", [
    (ConfigError("seed: must be int"), 2, "seed: must be int"),
    (PromptError("example a: its answer has 99 tokens"), 2, "example a: its answer has 99 tokens"),
    (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "Permission denied: 'out'"),
    (Preempted(2), 130, "stopped by SIGINT with everything saved; the same command goes on"),
    (EngineError("engine vllm at http://a:1, step 3: lost"), 1,
     "engine vllm at http://a:1, step 3"),
    (FULL, 1, "the disk is full: [Errno 28] No space left on device. Free some space"),
    # As array_record says it while a world is built.
    (RuntimeError("Failed\nwrite() failed: No space left on device"), 1,
     "the disk is full: write() failed: No space left on device. Free"),
])
def test_a_known_reason_is_one_line(capsys, error, status, message):
    assert told("train", raising(error)) == status
    line = capsys.readouterr().err
    assert line.startswith("guardjax train: ") and message in line and line.count("\n") == 1


def test_what_is_not_known_is_raised():
    with pytest.raises(RuntimeError, match="a fault of ours"):
        told("train", raising(RuntimeError("a fault of ours")))
    assert told("train", lambda: 3) == 3
