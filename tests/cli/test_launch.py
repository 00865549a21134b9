"""The recipes of experiments/scale/launch, with fakes of what starts their processes."""

import argparse
import json
import re
import stat
import subprocess
import sys

import pytest
import yaml

from guardjax.cli import compose, train
from guardjax.train.join import Join
from tests.train.processes import ROOT, environment, free_port

LAUNCH = ROOT / "experiments" / "scale" / "launch"
CONFIG = "configs/safeguard_vl/grpo_varied.py"
PROCESSES = 2

# Started in the place of `guardjax`: keeps its words, one process a line.
KEEP = """#!{python}
import json, os, sys
line = json.dumps([os.environ.get("SLURM_PROCID"), *sys.argv[1:]]) + "\\n"
os.write(os.open("{kept}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), line.encode())
"""
# Joins the other processes as the real command would, and says how many it found.
JOIN = """#!{python}
import argparse, os, sys
from guardjax.cli import train
from guardjax.train.join import Join, joined
parser = argparse.ArgumentParser()
train.add_parser(parser.add_subparsers())
args = parser.parse_args()
with joined(Join(args.distributed, args.coordinator, args.num_processes, args.process_id, 60)):
    from guardjax.train import hosts
    import jax
    line = f"{{jax.process_index()}} of {{hosts.gather_texts('here').count('here')}}\\n"
    os.write(os.open("{kept}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), line.encode())
"""
SRUN = """#!{python}
import os, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
running = [subprocess.Popen(command, env=os.environ | {{
    "SLURM_JOB_ID": "{port}", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
    "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}}) for i in range(2)]
sys.exit(max(process.wait() for process in running))
"""
# Runs what it is told to run on every worker, here and twice.
GCLOUD = """#!{python}
import subprocess, sys
commands = [word.partition("=")[2] for word in sys.argv if word.startswith("--command=")]
for command in commands * 2:
    subprocess.run(["bash", "-c", command], check=True)
"""
XPK = GCLOUD


@pytest.fixture
def fakes(tmp_path):
    """`fakes(name=text, ...)` makes programs, and returns the environment that finds them."""
    def make(**programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in programs.items():
            file = folder / name
            file.write_text(text.format(python=sys.executable, kept=tmp_path / "kept",
                                        port=free_port()))
            file.chmod(file.stat().st_mode | stat.S_IEXEC)
        env = environment(PROCESSES)
        return env | {"PATH": f"{folder}:{env['PATH']}"}
    return make


def kept(folder):
    return (folder / "kept").read_text().splitlines()


def check_command(words):
    """Asserts that `guardjax` takes these words, and returns (arguments, resolved run)."""
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers(dest="verb"))
    args = parser.parse_args(words)
    assert args.verb == "train"
    Join(args.distributed, args.coordinator, args.num_processes, args.process_id)
    return args, compose.load_config(str(ROOT / CONFIG), args.overrides)


@pytest.mark.parametrize("file", sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]),
                         ids=lambda file: file.name)
def test_bash_reads_it(file):
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name, variables, fake", [
    ("tpu_vm.sh", {"NAME": "n", "ZONE": "z", "TYPE": "v5litepod-16", "VERSION": "v",
                   "SHARE": "s:/e", "SOURCE": "guardjax"}, {"gcloud": GCLOUD}),
    ("gke_xpk.sh", {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "TYPE": "v5litepod-16",
                    "IMAGE": "i"}, {"xpk": XPK}),
    ("slurm.sbatch", {}, {"srun": SRUN}),
])
def test_every_host_is_given_the_same_command(name, variables, fake, fakes, tmp_path):
    env = fakes(guardjax=KEEP, **fake) | variables
    done = subprocess.run(["bash", LAUNCH / name, CONFIG, "run1", "seed=3"], env=env, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line)[1:] for line in kept(tmp_path)]
    assert len(lines) == PROCESSES and lines[0] == lines[1]
    args, run = check_command(lines[0])
    assert args.distributed == "auto" and args.out.endswith("run1")
    assert run.seed == 3 and run.mesh.rules == "fsdp" and run.mesh.fsdp == -1


@pytest.mark.parametrize("name", ["tpu_vm.sh", "gke_xpk.sh", "slurm.sbatch"])
def test_what_is_left_out_is_named(name, fakes, tmp_path):
    env = fakes(guardjax=KEEP)
    done = subprocess.run(["bash", LAUNCH / name], env=env, capture_output=True, text=True)
    assert done.returncode and re.search("NAME: name of|CLUSTER: |1: a config file", done.stderr)


def sky():
    return yaml.safe_load((LAUNCH / "sky.yaml").read_text())


def run_sky(fakes_env, tmp_path):
    """Runs the YAML's `run` as SkyPilot does on each of two nodes."""
    spec, port = sky(), str(free_port())
    running = [subprocess.Popen(["bash", "-c", spec["run"]], env=fakes_env | spec["envs"] | {
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2", "SKYPILOT_NUM_NODES": "2", "PORT": port,
        "SKYPILOT_NODE_RANK": str(i), "OUT": str(tmp_path / "out")}) for i in range(PROCESSES)]
    assert [process.wait() for process in running] == [0, 0]


def test_sky_gives_each_node_its_number(fakes, tmp_path):
    spec = sky()
    assert set(spec) <= {"name", "resources", "num_nodes", "workdir", "envs", "setup", "run"}
    assert spec["num_nodes"] == PROCESSES
    run_sky(fakes(guardjax=KEEP), tmp_path)
    found = [check_command(json.loads(line)[1:])[0] for line in kept(tmp_path)]
    assert sorted(args.process_id for args in found) == [0, 1]
    assert {args.num_processes for args in found} == {2}
    assert len({args.coordinator for args in found}) == 1
    assert found[0].coordinator.startswith("127.0.0.1:")


def test_colab_notebook_is_one_and_its_command_is_taken():
    notebook = json.loads((LAUNCH / "colab_tpu.ipynb").read_text())
    assert notebook["nbformat"] == 4
    lines = [line for cell in notebook["cells"] if cell["cell_type"] == "code"
             for line in "".join(cell["source"]).splitlines()]
    (command,) = [line for line in lines if "guardjax train" in line]
    args, run = check_command(command.split("guardjax ", 2)[-1].split())
    assert args.config == CONFIG and args.distributed == "off"
    assert run.mesh.rules == "data_parallel"


def test_the_command_of_the_readme_is_taken():
    text = (LAUNCH / "README.md").read_text()
    (command,) = re.findall(r"^guardjax (train .*)$", text, re.M)
    args, _ = check_command(command.split())
    assert args.config == CONFIG


@pytest.mark.slow
def test_processes_of_slurm_find_each_other(fakes, tmp_path):
    done = subprocess.run(["bash", LAUNCH / "slurm.sbatch", CONFIG, str(tmp_path / "out")],
                          env=fakes(guardjax=JOIN, srun=SRUN), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(kept(tmp_path)) == ["0 of 2", "1 of 2"]


@pytest.mark.slow
def test_nodes_of_sky_find_each_other(fakes, tmp_path):
    run_sky(fakes(guardjax=JOIN), tmp_path)
    assert sorted(kept(tmp_path)) == ["0 of 2", "1 of 2"]
