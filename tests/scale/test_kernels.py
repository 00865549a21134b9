"""Work of attention's kernels, against counts by hand and against the sizes, and their programs."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from guardjax.cli.main import main
from guardjax.models.attention import attend_rows, splash
from guardjax.models.attention.blocks import num_scores
from guardjax.models.attention.tree import Run, SegmentTree, visible
from guardjax.scale import counts, kernels
from guardjax.scale.counts import count
from guardjax.scale.kernels import KernelError, kernel_cost
from guardjax.scale.plan import make_plan
from guardjax.scale.slices import parse_slice, slice_mesh
from guardjax.scale.workload import Lengths, Workload
from guardjax.train.config import MeshConfig
from tests.scale.test_plan import workload
from tests.scale.libtpu import needs_libtpu


# Two rows, four heads on two, 1024 queries and 1536 keys; five blocks a head, two of them masked.
OPERANDS = {
    "plan": "s8[1,2,3]", "q": "bf16[2,4,1024,128]", "k": "bf16[2,2,1536,128]",
    "v": "bf16[2,2,1536,128]", "out": "bf16[2,4,1024,128]", "mask": "s32[7,512,512]"}
IDS = {"fwd": ("s32[2,1024,128]", "s32[2,8,1536]"), "dkv": ("s32[2,8,1024]", "s32[2,1536,128]")}
SUMS = {"dq": "f32[2,4,1,1024]", "dkv": "f32[2,4,8,1024]"}      # log-sum-exp, and the other one
RESULTS = {"fwd": ("bf16[2,4,1024,128]", "f32[2,4,1024,128]"), "dq": ("bf16[2,4,1024,128]",),
           "dkv": ("bf16[2,2,1536,128]",) * 2}
KIB = 1024
Q, KV, MASK = 2 * 4 * 256 * KIB, 2 * 2 * 384 * KIB, KIB**2      # bytes of queries, keys, a mask
BLOCKS = 2 * 4 * 5                                              # that rows and heads visit


def program(phase, scope="splash_5_blocks_2_masked_512x512", place="", family="splash_mha",
            mask=OPERANDS["mask"]):
    """A program that is one kernel, as TPU's compiler writes it, over several lines."""
    ids = IDS["dkv" if phase == "dkv" else "fwd"]
    extra = [] if phase == "fwd" else [SUMS[phase], OPERANDS["out"], SUMS[phase]]
    shapes = [OPERANDS["plan"], *(OPERANDS[name] for name in "qkv"), *ids, *extra, mask]
    given = "".join(f"  %a.{i} = {shape}{{0{place}}} parameter({i})\n"
                    for i, shape in enumerate(shapes))
    names = ", ".join(f"%a.{i}" for i in range(len(shapes)))
    results = ", ".join(f"{shape}{{0{place}}}" for shape in RESULTS[phase])
    return (f"ENTRY %main (a: s8[]) -> f32[] {{\n{given}"
            f"  ROOT %kernel.1 = ({results}) custom-call({names}), "
            'custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={\n'
            '"xprof_metadata":"{\\"block_q\\": 512}"\n'
            f'}}}}, metadata={{op_name="jit(loss)/jvp({scope})/vmap()/{family}_{phase}_segmented'
            '_residuals/pallas_call" stack_frame_id=7}\n}\n')


@pytest.mark.parametrize("phase, products, moved", [
    # Queries once, their ids by every head; keys, values and ids by block; masks; both results.
    ("fwd", 2, Q + 2 * 4 * 512 * KIB + BLOCKS * (2 * 128 * KIB + 16 * KIB) + 16 * MASK + Q + 2 * Q),
    # Also the results' gradient, of a queries' size, and two sums.
    ("dq", 3, Q + Q + 2 * 2 * 4 * 4 * KIB + 2 * 4 * 512 * KIB + BLOCKS * (2 * 128 + 16) * KIB
     + 16 * MASK + Q),
    # Keys, values and ids once; queries, gradients, ids and the two sums by block.
    ("dkv", 4, 2 * KV + 2 * 768 * KIB + BLOCKS * (2 * 128 + 3 * 16) * KIB + 16 * MASK + 2 * KV),
])
def test_a_kernel_counts_as_the_blocks_that_it_visits(phase, products, moved):
    cost = count(program(phase))
    assert cost.flops == 2 * products * BLOCKS * 512 * 512 * 128
    assert cost.bytes == moved and cost.sent == 0


@pytest.mark.parametrize("phase, numbers, moved", [
    ("fwd", "s32[1024,128]", 2 * 4 * 512 * KIB), ("dq", "s32[1024,128]", 2 * 4 * 512 * KIB),
    ("dkv", "s32[8,1024]", BLOCKS * 16 * KIB)])
def test_a_kernel_that_computes_its_mask_reads_a_number_a_query(phase, numbers, moved):
    """As it reads the ids of queries, in place of blocks of a mask."""
    stored, computed = count(program(phase)), count(program(phase, mask=numbers))
    assert computed.bytes == stored.bytes - 16 * MASK + moved
    assert computed.flops == stored.flops


def test_what_a_kernel_finds_on_the_chip_is_not_memory():
    cost = count(program("fwd", place=":T(8,128)S(1)"))
    assert cost.bytes == 0 and cost.flops > 0


@pytest.mark.parametrize("text", [program("fwd", scope="attention"),
                                  program("dq", family="ragged_attention")])
def test_a_kernel_whose_work_is_not_known_is_refused(text):
    with pytest.raises(KernelError, match=r"the work of kernel 'jit\(loss\)/.*' is not known"):
        count(text)


TREES = [SegmentTree((Run(1, 300), Run(4, 90))), SegmentTree((Run(1, 1500), Run(3, 100))),
         SegmentTree((Run(1, 200), Run(2, 60), Run(6, 150)), first_query=1),
         SegmentTree((Run(1, 2048), Run(8, 511)))]


@pytest.mark.parametrize("tree", TREES)
def test_blocks_are_those_that_the_kernel_plans(tree):
    """Ours, from the tree; the library's plan; and all pairs of tokens where they are few."""
    length, seen = (-(-n // 128) * 128 for n in (tree.num_queries, tree.num_keys))
    plan = splash._plan(tree, 4, length, seen, False)
    rows, columns = plan.block
    assert num_scores(tree) == plan.visits * rows * columns
    assert 0 < plan.masked <= plan.visits
    if length * seen > 2**22:
        return
    pairs = visible(tree.query_table(length), tree.key_table(seen)).reshape(
        length // rows, rows, seen // columns, columns)
    assert plan.visits == pairs.any((1, 3)).sum()
    assert plan.masked == (pairs.any((1, 3)) & ~pairs.all((1, 3))).sum()


def planned(kind, topology, rules, lengths, attention, **changes):
    asked = parse_slice(topology)
    work = workload(kind, slice_mesh(asked, rules), rules, **changes)
    cfg = dataclasses.replace(work.cfg, attention=attention)
    return make_plan(asked, Workload(work.run, work.stage, cfg, lengths, work.mesh))


@needs_libtpu
@pytest.mark.slow
def test_a_program_for_a_tpu_takes_the_kernels_and_counts_them(monkeypatch):
    """`auto` is splash where the chips are TPUs, though this machine has none. Of 512 tokens in two
    blocks, three of four blocks are visited, so that counting all would be beyond the bound."""
    found = []
    monkeypatch.setattr(counts, "kernel_cost", lambda *args: found.append(kernel_cost(*args)) or
                        found[-1])
    plan = planned("sft", "v5e:1x1", MeshConfig(), Lengths(1000, 16, 24), "auto")
    assert abs(plan.programs[0].excess) < 0.001
    assert sum(cost.flops for cost in found) > 0.1 * plan.programs[0].cost.flops


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("rules", [MeshConfig(fsdp=-1, rules="fsdp"),
                                   MeshConfig(fsdp=-1, tensor=2, rules="fsdp_tensor")],
                         ids=lambda rules: rules.rules)
def test_no_chip_repeats_the_kernels_of_another(rules):
    for each in planned("grpo", "v5e:2x2", rules, Lengths(256, 64, 8), "splash").programs:
        assert abs(each.excess) < 0.01, each


@needs_libtpu
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("size", [256, 128, 80, 8])
def test_kernels_compile_for_heads_of_every_size(size, dtype):
    """Forward and backward, text and pictures: 128 and 80 are those of the released models."""
    place = jax.sharding.SingleDeviceSharding(
        slice_mesh(parse_slice("v5e:1x1"), MeshConfig()).devices.flat[0])
    heads = [jax.ShapeDtypeStruct((1, h, 400, size), dtype, sharding=place) for h in (4, 2, 2)]
    ids = jax.ShapeDtypeStruct((1, 400), jnp.int32, sharding=place)

    def loss(q, k, v, ids):
        return sum(attend_rows(q, k, v, ids, ids, tree, scale=1.0, backend="splash").sum()
                   for tree in (SegmentTree((Run(1, 300), Run(4, 25))), None))

    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*heads, ids).compile().as_text()
    assert text.count("tpu_custom_call") == 6
    products, scores = sum(kernels.PRODUCTS.values()), 4 * 512**2       # one block for each head
    assert count(text).flops == 2 * products * 2 * scores * size


@needs_libtpu
def test_a_back_end_that_a_tpu_has_not_is_told(capsys):
    assert main(["aot", "--config", "grpo_varied", "--topology", "v5e:1x1", "--mesh", "data=1",
                 "attention=cudnn", "dtype=bfloat16"]) == 2
    assert re.search("attention='cudnn' needs an NVIDIA GPU, and this process computes on 'tpu'",
                     capsys.readouterr().err)
