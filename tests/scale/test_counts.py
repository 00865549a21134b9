"""What is counted on the text of a program, against counts by hand and the compiler's own."""

import json
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.scale.counts import CountError, count
from guardjax.scale.hlo import parse
from guardjax.scale.roofline import Cost


def compiled(fn, *shapes):
    return jax.jit(fn).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).compile()


@pytest.mark.parametrize("seed", range(5))
def test_flops_of_random_products_are_the_compilers(seed):
    rng = np.random.default_rng(seed)
    b, m, k, n = (int(size) for size in rng.integers(2, 65, 4))
    program = compiled(lambda x, y: jnp.einsum("bmk,bkn->bmn", x, y), (b, m, k), (b, k, n))
    assert count(program.as_text()).flops == 2 * b * m * k * n
    assert program.cost_analysis()["flops"] == 2 * b * m * k * n


def layers(unroll):
    def forward(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights, unroll=unroll)[0]

    return jax.grad(lambda w, x: forward(x, w).sum())


def test_a_loop_counts_as_often_as_it_runs():
    looped = compiled(layers(1), (6, 48, 48), (32, 48))
    unrolled = compiled(layers(6), (6, 48, 48), (32, 48))
    # Forward 6 products; backward a weight's gradient each, and 5 or 6 of the input's.
    ours, theirs = count(looped.as_text()), count(unrolled.as_text())
    product = 2 * 32 * 48 * 48
    assert ours.flops == 18 * product
    assert theirs.flops in (17 * product, 18 * product)
    assert looped.cost_analysis()["flops"] < ours.flops / 3, "else no count of ours is needed"
    assert unrolled.cost_analysis()["flops"] == pytest.approx(theirs.flops, rel=0.05)


# As TPU's compiler writes loops that it makes itself: it does not say how often they run.
COUNTED = """HloModule counted

%body (p: (f32[16,16], u32[])) -> (f32[16,16], u32[]) {
  %p = (f32[16,16]{1,0}, u32[]) parameter(0)
  %x = f32[16,16]{1,0} get-tuple-element(%p), index=0
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %step = u32[]{:T(128)} constant(STEP)
  %y = f32[16,16]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %next = u32[]{:T(128)} add(%i, %step)
  ROOT %out = (f32[16,16]{1,0}, u32[]) tuple(%y, %next)
}

%cond (q: (f32[16,16], u32[])) -> pred[] {
  %q = (f32[16,16]{1,0}, u32[]) parameter(0)
  %j = u32[]{:T(128)} get-tuple-element(%q), index=1
  %end = u32[]{:T(128)} constant(9)
  ROOT %more = pred[] compare(%j, %end), direction=LT
}

ENTRY %main (a: f32[16,16]) -> f32[16,16] {
  %a = f32[16,16]{1,0} parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %start = (f32[16,16]{1,0}, u32[]) tuple(%a, %zero)
  %loop = (f32[16,16]{1,0}, u32[]) while(%start), condition=%cond, body=%body
  ROOT %b = f32[16,16]{1,0} get-tuple-element(%loop), index=0
}
"""


@pytest.mark.parametrize("step, trips", [(1, 9), (2, 5), (4, 3)])
def test_a_counter_need_not_go_by_ones(step, trips):
    found = count(COUNTED.replace("STEP", str(step)), endless=1000)
    assert found.flops == trips * 2 * 16**3


def test_a_loop_that_ends_by_what_it_computes_counts_as_asked():
    def decode(x):
        return jax.lax.while_loop(lambda c: (c[1] < 99) & jnp.any(c[0] < 5),
                                  lambda c: (c[0] @ c[0], c[1] + 1), (x, 0))[0]

    text = compiled(decode, (16, 16)).as_text()
    assert count(text, endless=7).flops == 7 * 2 * 16**3


def test_bytes_of_a_slice_are_those_of_the_slice():
    """A loop over stacked weights reads one at every turn: all of them would be 64 stacks."""
    text = compiled(layers(1), (64, 48, 48), (32, 48)).as_text()
    stack = 4 * 64 * 48 * 48
    assert 3 * stack < count(text).bytes < 40 * stack


MESH = textwrap.dedent("""
    import json
    import jax, jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from guardjax.scale.counts import count

    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    place = lambda *spec: NamedSharding(mesh, P(*spec))
    shape = lambda dims, *spec: jax.ShapeDtypeStruct(dims, jnp.float32, sharding=place(*spec))
    text = lambda fn, out, *args: jax.jit(fn, out_shardings=out).lower(*args).compile().as_text()
    split = place(("data", "fsdp"))
    x = shape((64, 32), ("data", "fsdp"))
    out = {
        "gather": text(lambda x: x, place(), x),
        "sum": text(lambda x: x.sum(0), place(), x),
        "loop": text(lambda x: jax.lax.scan(
            lambda c, _: (jax.lax.with_sharding_constraint(jnp.sin(
                jax.lax.with_sharding_constraint(c, place())), split), None), x, None,
            length=5)[0], split, x),
    }
    print(json.dumps({name: dict(count(each).collectives) for name, each in out.items()}))
""")


def test_messages_are_those_of_rings():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", MESH], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    whole = 64 * 32 * 4
    assert sum(out["gather"].values()) == pytest.approx(whole * 7 / 8, rel=0.15)
    assert out["sum"] == {"all-reduce": 2 * 32 * 4 * 7 / 8}
    assert sum(out["loop"].values()) == pytest.approx(5 * sum(out["gather"].values()))


GROUP = "  %a.1 = f32[8]{0} parameter(0)\n  ROOT %r = f32[32]{0} all-gather(%a.1), channel_id=1, "


@pytest.mark.parametrize("groups, num", [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4), ("replica_groups=[2,4]<=[8]", 4),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 4),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8),
])
def test_chips_of_a_collective_are_read(groups, num):
    text = f"ENTRY %main (a: f32[8]) -> f32[32] {{\n{GROUP}{groups}, dimensions={{0}}\n}}\n"
    assert count(text).collectives == {"all-gather": 128 * (num - 1) / num}


def test_chips_that_cannot_be_read_are_refused():
    text = f"ENTRY %main (a: f32[8]) -> f32[32] {{\n{GROUP}replica_groups=odd\n}}\n"
    with pytest.raises(CountError, match="cannot read the chips"):
        count(text)


def test_one_that_overlaps_is_sent_once():
    line = "all-gather(%a.1), channel_id=3, replica_groups={{0,1}}, dimensions={0}\n"
    text = ("%start (a.1: f32[8]) -> f32[16] {\n  %a.1 = f32[8]{0} parameter(0)\n"
            f"  ROOT %s = f32[16]{{0}} {line}}}\n"
            "ENTRY %main (a: f32[8]) -> f32[16] {\n  %a.1 = f32[8]{0} parameter(0)\n"
            "  %f = f32[16]{0} fusion(%a.1), kind=kCustom, calls=%start\n"
            f"  ROOT %d = f32[16]{{0}} {line}}}\n")
    assert count(text).collectives == {"all-gather": 32}


def test_arrays_that_stay_on_the_chip_are_not_memory():
    text = ("ENTRY %main (a: f32[8]) -> f32[8] {\n  %a.1 = f32[8]{0:T(128)S(1)} parameter(0)\n"
            "  ROOT %r = f32[8]{0:T(128)} negate(%a.1)\n}\n")
    assert count(text).bytes == 32
    assert [shape.in_hbm for shape in parse(text).computations["main"].instructions["a.1"].results
            ] == [False]


# As TPU's compiler starts what it waits for later: a part of a weight, 32 of 256 bytes, brought to
# the chip; a part handed on to the next chip; an array gathered from two, and summed.
STARTED = {
    "slice": ("(({0}), s8[32]{{0:S(1)}}, s32[]{{:S(2)}}) slice-start(%a), slice={{[0:32]}}", 32),
    "slice to HBM": ("(({0}), s8[32]{{0}}, s32[]{{:S(2)}}) slice-start(%a), slice={{[0:32]}}", 64),
    "pass on": ("({0}, {0}, u32[]{{:S(2)}}, u32[]{{:S(2)}}) collective-permute-start(%a), "
                "channel_id=1, source_target_pairs={{{{0,1}},{{1,0}}}}", 512),
    "gather": ("({0}, s8[512]{{0}}) all-gather-start(%a), channel_id=1, "
               "replica_groups={{{{0,1}}}}, dimensions={{0}}", 768),
    "sum": ("{0} all-reduce-start(%a), channel_id=1, replica_groups={{{{0,1}}}}", 512),
}


@pytest.mark.parametrize("name", STARTED)
def test_what_is_started_and_waited_for_moves_once(name):
    line, moved = STARTED[name]
    op = re.search(r"([a-z-]+)-start", line)[1]
    text = ("ENTRY %main (a: s8[256]) -> s8[256] {\n  %a = s8[256]{0} parameter(0)\n"
            f"  %s = {line.format('s8[256]{0}')}\n"
            f"  ROOT %d = s8[256]{{0}} {op}-done(%s)\n}}\n")
    assert count(text).bytes == moved


def test_costs_add():
    one = Cost(1.0, 2.0, {"all-gather": 4.0})
    assert one + one * 2 == Cost(3.0, 6.0, {"all-gather": 12.0})
    assert (one + Cost(0.0, 0.0, {"all-reduce": 1.0})).sent == 5.0
