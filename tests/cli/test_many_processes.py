"""`guardjax train` as two processes of four devices: what one process of eight computes."""

import signal

import numpy as np
import pytest

from guardjax.train.metrics import read_metrics
from tests.train.processes import numbered, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Of each metric: float32 sums in another order. Gaps of log-probabilities are rounding themselves.
TOLERANCE = {"rtol": 2e-5, "atol": 1e-6}

STAGE = {"steps": 2, "batch": 8, "policies": "L3", "optim": {"lr": 1e-2}}
FROZEN = STAGE | {"freeze": ("visual",)}
# Before a process is asked for rewards the n-th time it gets a signal: "process:n:signal"; 0 fails.
REWARDS = """
import os

asked = 0

def letters(completions, **columns):
    global asked
    asked += 1
    act = os.environ.get("TEST_ACT")
    if act:
        import jax
        process, when, signum = map(int, act.split(":"))
        if jax.process_index() == process and asked == when:
            if not signum:
                raise OSError("told to fail")
            os.kill(os.getpid(), signum)
    return [float(sum(map(str.isalpha, text))) for text in completions]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def config(tiny_pair, folder):
    """SFT, GRPO, GRPO with dynamic sampling and the exact gradient, on a mesh of all three axes."""
    rewards = folder / "rewards.py"
    rewards.write_text(REWARDS)
    rl = {"group_size": 2, "max_tokens": 4, "kl_coef": 0.1, "reward": f"{rewards}:letters"}
    stages = [
        STAGE | {"kind": "sft", "steps": 3},
        FROZEN | {"kind": "grpo", "steps": 4, "rl": rl},
        FROZEN | {"kind": "grpo", "name": "dynamic",
                  "rl": rl | {"dynamic_sampling": True, "dynamic_rounds": 2}},
        FROZEN | {"kind": "exact", "rl": {"reward": "gated"}},
    ]
    run = {"name": "many", "base": str(tiny_pair), "stages": stages,
           "world": {"sizes": {"train": 40, "test": 4}}, "checkpoint": {"every_steps": 2},
           "log": {"every_steps": 1, "table_every_steps": 1, "groups_every_steps": 1},
           "mesh": {"rules": "fsdp_tensor", "data": 2, "fsdp": 2, "tensor": 2}}
    file = folder / "many.py"
    file.write_text(f"def get_config():\n    return {run!r}\n")
    return file


@pytest.fixture(scope="module")
def train(config, folder, tmp_path_factory):
    """`train(out, processes, act)` runs the command to its end."""
    def run(out, processes, act="", limit=900):
        command = ["-m", "guardjax.cli.main", "train", "--config", str(config),
                   "--out", str(folder / out)]
        return run_all(numbered(command, processes), folder, limit, TEST_ACT=act,
                       GUARDJAX_CACHE_DIR=str(tmp_path_factory.getbasetemp() / "cache"),
                       JAX_COMPILATION_CACHE_DIR=str(folder / "xla"),
                       JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    return run


@pytest.fixture(scope="module")
def alone(train, folder):
    """The folder that one process of eight devices left."""
    (ended,) = train("alone", 1)
    assert ended.status == 0, ended.output[-3000:]
    return folder / "alone"


def statuses(ended):
    return [each.status for each in ended]


def texts(folder):
    """What was sampled: of each prompt kept, its answers word for word and their rewards."""
    return [(each["step"], each["example_id"], each["sort"], each["stands_for"],
             [(answer["text"], answer["reward"]) for answer in each["answers"]])
            for each in read_metrics(folder / "groups.jsonl")]


def same_run(one, other):
    """Asserts that two folders hold the same run: samples equal, metrics up to rounding."""
    assert texts(one) == texts(other)
    assert read_metrics(one / "samples.jsonl") == read_metrics(other / "samples.jsonl")
    same_metrics(one, other)


def same_metrics(one, other):
    """Asserts that two folders hold the same metrics up to rounding."""
    lines = [read_metrics(each / "metrics.jsonl") for each in (one, other)]
    assert [list(line) for line in lines[0]] == [list(line) for line in lines[1]]
    for line, expected in zip(*lines, strict=True):
        for name in line:
            if isinstance(line[name], str | None):
                assert line[name] == expected[name], name
            else:
                np.testing.assert_allclose(line[name], expected[name], **TOLERANCE, err_msg=name)


def test_two_processes_train_as_one(train, alone, folder):
    ended = train("two", 2)
    assert statuses(ended) == [0, 0], [each.output[-3000:] for each in ended]
    same_run(folder / "two", alone)
    assert len(read_metrics(alone / "metrics.jsonl")) == 11
    answers = {text for *_, group in texts(alone) for text, _ in group}
    assert len(answers) > 10, "the model is random: so are its answers"
    assert "grpo" in ended[0].output and "step 2/" in ended[0].output
    assert "step" not in ended[1].output and "model:" not in ended[1].output, "only the first tells"
    assert [len(list((folder / "two" / "model").glob("*.safetensors")))] == [1]


def test_stopped_by_one_killed_resumed_by_another_number(train, alone, folder):
    """SIGTERM at one process, kill -9 at the other, then again by a single process."""
    stopped = train("chain", 2, act=f"1:2:{signal.SIGTERM:d}")
    assert statuses(stopped) == [143, 143], [each.output[-3000:] for each in stopped]
    assert "asked to stop; saved step 6" in stopped[0].output, "one step after the signal"
    killed = train("chain", 2, act=f"1:2:{signal.SIGKILL:d}")
    assert killed[1].status == -signal.SIGKILL
    named_in_time(killed[0], "The following tasks are unhealthy")
    (last,) = train("chain", 1)
    assert last.status == 0, last.output[-3000:]
    same_run(folder / "chain", alone)


def test_begun_by_one_goes_on_as_two(train, alone, folder):
    (stopped,) = train("grown", 1, act=f"0:2:{signal.SIGTERM:d}")
    assert stopped.status == 143, stopped.output[-3000:]
    first_dies = train("grown", 2, act=f"0:1:{signal.SIGKILL:d}")
    assert first_dies[0].status == -signal.SIGKILL
    named_in_time(first_dies[1], "the leader task was preempted/died", "another one ended")
    ended = train("grown", 2)
    assert statuses(ended) == [0, 0], [each.output[-3000:] for each in ended]
    same_run(folder / "grown", alone)


def named_in_time(survivor, *causes):
    """Asserts that it ended, within a minute after the other, and said why."""
    assert survivor.status not in (0, -signal.SIGKILL)
    assert survivor.seconds < 60, survivor.seconds
    assert any(cause in survivor.output for cause in causes), survivor.output[-3000:]


def test_other_configs_are_refused_by_all(config, folder, tmp_path_factory):
    command = ["-m", "guardjax.cli.main", "train", "--config", str(config),
               "--out", str(folder / "apart")]
    commands = numbered(command, 2)
    commands[1].append("stages.0.steps=4")
    ended = run_all(commands, folder,
                    GUARDJAX_CACHE_DIR=str(tmp_path_factory.getbasetemp() / "cache"))
    assert statuses(ended) == [2, 2], [each.output[-3000:] for each in ended]
    for each in ended:
        assert "guardjax train: the processes of this run disagree:" in each.output
        assert "config: process 0 has " in each.output and "process 1 " in each.output
    assert not (folder / "apart").exists(), "nothing was claimed"


def test_a_reward_that_fails_on_one_process_stops_both(train, folder):
    ended = train("failed", 2, act="1:2:0")
    assert statuses(ended) == [1, 1], [each.output[-3000:] for each in ended]
    assert "told to fail" in ended[1].output
    assert "process 1: RewardError" in ended[0].output and "told to fail" in ended[0].output
    assert len(read_metrics(folder / "failed" / "metrics.jsonl")) == 4
    assert (folder / "failed" / "checkpoints" / "4").is_dir(), "the step before is saved"
