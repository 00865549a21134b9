"""Programs of real stages, compiled for TPUs where libtpu is there, and the verb."""

import dataclasses
import io
import json
import re

import jax
import pytest
import rich.console
from jax.sharding import NamedSharding, PartitionSpec

from guardjax.cli.main import main
from guardjax.models.tiny import tiny_config
from guardjax.scale import slices, tables
from guardjax.scale.chips import CHIPS, GIB
from guardjax.scale.memory import compile_memory
from guardjax.scale.plan import Plan, argument_bytes, make_plan
from guardjax.scale.records import plan_record
from guardjax.scale.slices import parse_slice, slice_mesh
from guardjax.scale.workload import Lengths, Workload
from guardjax.train.config import LoraConfig, MeshConfig, RLConfig, RunConfig, StageConfig
from guardjax.train.sharding import make_mesh
from tests.scale.libtpu import needs_libtpu

LENGTHS = Lengths(prompt=64, image=16, answer=8)


def workload(kind, mesh, rules, **changes):
    cfg = dataclasses.replace(
        tiny_config(512, dtype="bfloat16"), scan_layers=True, remat="full")
    rl = RLConfig(group_size=4, max_tokens=8) if kind == "grpo" else RLConfig()
    stage = StageConfig(
        kind=kind, steps=10, **{"batch": 4, "rl": rl, "freeze": ("visual",)} | changes)
    run = RunConfig(name="aot", stages=(stage,), mesh=rules)
    return Workload(run, stage, cfg, LENGTHS, mesh)


def one_device(kind, **changes):
    return workload(kind, make_mesh(MeshConfig(), jax.devices()[:1]), MeshConfig(), **changes)


@pytest.mark.parametrize("kind, names", [
    ("sft", ["sft"]), ("grpo", ["grpo/rollout", "grpo/update"])])
def test_programs_of_a_step_are_described_without_arrays(kind, names):
    programs = one_device(kind).programs()
    assert [program.jit.name for program in programs] == names
    for program in programs:
        assert not [leaf for leaf in jax.tree.leaves(program.args) if isinstance(leaf, jax.Array)]
        assert argument_bytes(program) > 4 * 1_000_000, "the model's two million parameters"


def test_a_rollout_used_twice_has_a_score():
    rl = RLConfig(group_size=4, max_tokens=8, minibatches=2)
    _, score, update = one_device("grpo", rl=rl).programs()
    assert score.jit.name == "grpo/score"
    assert score.args[2]["tokens"].shape == (4, 4, 8)
    assert update.args[2]["old_logp"].shape == (2, 4, 8)


def test_a_stage_that_cannot_be_described_is_refused():
    with pytest.raises(ValueError, match="kind 'sight'; programs of sft, grpo"):
        one_device("sight", freeze=())


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("kind, rules, changes", [
    ("sft", MeshConfig(fsdp=-1, rules="fsdp"), {"lora": LoraConfig(rank=8)}),
    ("grpo", MeshConfig(fsdp=-1, rules="fsdp"), {}),
    ("grpo", MeshConfig(fsdp=-1, tensor=2, rules="fsdp_tensor"), {}),
])
def test_flops_in_a_tpus_program_are_those_the_sizes_say(kind, rules, changes):
    asked = parse_slice("v5e:2x2")
    work = workload(kind, slice_mesh(asked, rules), rules, **changes)
    plan = make_plan(asked, work)
    assert plan.fits
    for each in plan.programs:
        assert abs(each.excess) < 0.05, each
        # All that is given is read at least once, but for a table of embeddings (its rows), and
        # what is so small that the compiler fetches it in ways that are not counted.
        assert each.cost.sent > 0 and each.cost.bytes > 0.85 * each.memory.arguments


@needs_libtpu
def test_the_verb_prints_what_fits(capsys):
    asked = parse_slice("v5e:1x1")
    rules = MeshConfig()
    plan = make_plan(asked, workload("sft", slice_mesh(asked, rules), rules))
    assert abs(plan.programs[0].excess) < 0.05 and plan.programs[0].cost.sent == 0
    text = shown(plan)
    for words in ("v5e:1x1", "one chip", "sft", "15.75 GiB", "yes", "Least time"):
        assert words in text
    (record,) = json.loads(json.dumps([plan_record(plan)]))
    (program,) = record["programs"]
    assert record["fits"] and record["slice"] == "v5e:1x1" and program["compiled"]
    assert program["flops"] == pytest.approx(program["flops_of_sizes"], rel=0.05)
    assert 0 < program["seconds"]["floor"] <= program["seconds"]["least"]


def shown(plan: Plan) -> str:
    console = rich.console.Console(file=io.StringIO(), width=200)
    for table in (tables.memory_table([plan]), tables.work_table([plan]),
                  tables.sent_table([plan])):
        console.print(table)
    return console.file.getvalue()


@needs_libtpu
def test_what_is_given_and_does_not_fit_is_not_compiled(capsys):
    status = main(["aot", "--config", "grpo_varied", "--topology", "v5e:1x1", "--mesh", "data=1",
                   "base=Qwen/Qwen2.5-VL-7B-Instruct", "memory.scan_layers=true"])
    out = capsys.readouterr().out
    assert status == 1 and "not asked" in out and "> " in out


@pytest.mark.parametrize("words, message", [
    (["--topology", "v5e:9x9"], "v5e comes in 1x1, 2x2, 2x4"),
    (["--topology", "v9z:1x1"], "is not a TPU slice such as v5e:4x4; known are v5e: 1x1, 2x2, "),
    (["--topology", "v5e:2x2", "--mesh", "fsdp=3"], "fsdp=3 * tensor=1 does not fit 4 device"),
    (["--topology", "v5e:2x2", "--mesh", "rows=2"], "give sizes of data, fsdp, tensor"),
    (["--search", "v9"], "generations are v5e, v5p, v6e"),
    (["--topology", "v5e:2x2", "--stage", "sft"], "--stage sft is none of grpo"),
    (["--topology", "v5e:2x2", "base=nowhere"], "no release such as"),
    (["--topology", "v5e:2x2", "--image", "4096"], "images are part of the prompt"),
])
def test_bad_input_is_told_before_anything_is_compiled(words, message, capsys):
    assert main(["aot", "--config", "grpo_varied", *words]) == 2
    assert message in capsys.readouterr().err


@needs_libtpu
def test_a_batch_that_the_mesh_does_not_divide_is_told(capsys):
    assert main(["aot", "--config", "grpo_7b", "--topology", "v5e:4x4"]) == 2
    assert re.search("a batch of 2 does not split over data=1 .* fsdp=16 .*no more than 8 devices "
                     "busy, as mesh.fsdp=2 mesh.tensor=4", capsys.readouterr().err)


def test_without_libtpu_the_way_to_get_it_is_told(capsys, monkeypatch):
    monkeypatch.setattr(slices, "has_libtpu", lambda: False)
    assert main(["aot", "--config", "grpo_varied", "--topology", "v5e:2x2"]) == 2
    assert "pip install 'guardjax[tpu]'" in capsys.readouterr().err


def test_a_libtpu_of_another_jax_is_refused(capsys, monkeypatch):
    """What it compiles could not be read, which would show after minutes of compiling."""
    real = slices.importlib.metadata.version
    monkeypatch.setattr(slices, "has_libtpu", lambda: True)
    monkeypatch.setattr(slices.importlib.metadata, "version",
                        lambda name: "0.0.1" if name == "libtpu" else real(name))
    assert main(["aot", "--config", "grpo_varied", "--topology", "v5e:2x2"]) == 2
    assert re.search(r"libtpu 0.0.1 does not belong to JAX .*: pip install 'libtpu==0.0.",
                     capsys.readouterr().err)


@needs_libtpu
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_memory_of_a_chip_is_what_the_compiler_says(chip):
    asked = parse_slice(f"{chip.name}:{chip.slices[0]}")
    rules = MeshConfig(fsdp=-1, rules="fsdp")
    mesh = slice_mesh(asked, rules)
    too_large = jax.ShapeDtypeStruct(
        (2 * chip.hbm // 4,), jax.numpy.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    lowered = jax.jit(lambda x: x + 1).lower(too_large)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Ran out of memory") as caught:
        lowered.compile()
    limit = re.search(r"available HBM \(([\d.]+)G\)", str(caught.value))
    assert float(limit[1]) == pytest.approx(chip.hbm / GIB, abs=0.01)
    compiled, memory = compile_memory(lowered)
    assert compiled is None and memory.peak == pytest.approx(4 * chip.hbm, rel=0.01)
