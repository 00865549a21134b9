"""`guardjax train` over annotated pictures, matched pairs and many policies, as two processes."""

import pytest

from guardjax.train.metrics import read_metrics
from tests.cli.test_many_processes import same_metrics, same_run, statuses
from tests.data import dataset_files as files
from tests.train.processes import numbered, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DEVICES = 4     # of all processes together
STAGE = {"steps": 2, "batch": 8, "freeze": ("visual",), "optim": {"lr": 1e-2}}
RUN = {"name": "many", "world": {"sizes": {"train": 40, "test": 4}},
       "log": {"every_steps": 1, "table_every_steps": 1, "groups_every_steps": 1},
       "mesh": {"rules": "fsdp", "data": 2, "fsdp": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("many_data")


@pytest.fixture(scope="module")
def both(tiny_model, folder, tmp_path_factory):
    """`both(name, **run)` trains as one process and as two, and returns the two folders."""
    def train(name, **run):
        file = folder / f"{name}.py"
        config = RUN | {"base": str(tiny_model)} | run
        file.write_text(f"def get_config():\n    return {config!r}\n")
        found = []
        for processes in (1, 2):
            found.append(folder / f"{name}{processes}")
            command = ["-m", "guardjax.cli.main", "train", "--config", str(file),
                       "--out", str(found[-1])]
            ended = run_all(
                numbered(command, processes), folder, 900,
                GUARDJAX_CACHE_DIR=str(tmp_path_factory.getbasetemp() / "cache"),
                JAX_COMPILATION_CACHE_DIR=str(folder / "xla"), JAX_DISABLE_MOST_OPTIMIZATIONS="1",
                XLA_FLAGS=f"--xla_force_host_platform_device_count={DEVICES // processes} "
                          "--xla_cpu_collective_call_terminate_timeout_seconds=600")
            assert statuses(ended) == [0] * processes, [each.output[-3000:] for each in ended]
        return found
    return train


def test_a_data_set_is_learned_as_by_one(both, folder):
    files.own(folder / "own")
    data = {"format": "own", "dir": str(folder / "own"), "policy": str(folder / "own/house.yaml"),
            "report": "test"}
    one, two = both("own", dataset=data, stages=[STAGE | {"kind": "sft", "steps": 3}])
    same_metrics(two, one)
    lines = read_metrics(one / "metrics.jsonl")
    assert len(lines) == 3 and lines[2]["loss"] < lines[0]["loss"]
    assert (two / "report.html").is_file()


def test_pairs_and_many_policies_are_learned_as_by_one(both):
    rl = {"group_size": 2, "max_tokens": 4, "reward": "gated_pair", "entropy_coef": 0.1}
    one, two = both("pairs", stages=[
        STAGE | {"kind": "bp_adapt"},
        STAGE | {"kind": "grpo", "batch": 16, "policies_per_image": 2, "rl": rl}])
    same_run(two, one)
    assert all(line["grad_norm"] > 0 for line in read_metrics(one / "metrics.jsonl"))
