"""Bytes to and from HBM of what TPU's compiler writes: done beside other work, or kept on the chip.

The texts are shortened from programs that it compiled; S(1) is on the chip.
"""

import textwrap

import pytest

from guardjax.scale.counts import count

KB = 1024


def moved(text):
    return count(textwrap.dedent(text)).bytes


def main(lines, result="f32[16,16]"):
    body = "\n".join(f"  {line}" for line in lines)
    return f"ENTRY %main (a: f32[16,16]) -> {result} {{\n{body}\n}}\n"


def one(lines):
    """Of [16, 16] in float32, which is 1 KB."""
    return moved(main(["%a = f32[16,16]{1,0} parameter(0)", *lines])) / KB


HBM, CHIP, FLAG = "{1,0:T(8,128)}", "{1,0:T(8,128)S(1)}", "u32[]{:S(2)}"


@pytest.mark.parametrize("source, target, read, written", [
    (HBM, CHIP, 1, 0), (CHIP, HBM, 0, 1), (HBM, HBM, 1, 1), (CHIP, CHIP, 0, 0)])
def test_a_copy_is_read_and_written_once(source, target, read, written):
    whole = f"f32[16,16]{source}"
    found = moved(main([
        f"%a = {whole} parameter(0)",
        f"%start = (f32[16,16]{target}, {whole}, {FLAG}) copy-start(%a)",
        f"ROOT %done = f32[16,16]{target} copy-done(%start)"]))
    assert found == (read + written) * KB


@pytest.mark.parametrize("source, target, parts", [(HBM, CHIP, 1), (CHIP, HBM, 1), (HBM, HBM, 2)])
def test_a_slice_that_is_fetched_ahead_counts_as_the_slice_once(source, target, parts):
    whole = f"f32[16,16]{source}"
    found = moved(main([
        f"%a = {whole} parameter(0)",
        f"%start = (({whole}), f32[4,16]{target}, s32[]{{:S(2)}}) slice-start(%a), slice={{[0:4]}}",
        f"ROOT %done = f32[4,16]{target} slice-done(%start)"], "f32[4,16]"))
    assert found == parts * KB / 4


@pytest.mark.parametrize("started, written", [
    (f"(f32[16,16]{HBM}, f32[16,16]{HBM}, {FLAG}, {FLAG}) collective-permute-start(%a)", 1),
    (f"(f32[16,16]{HBM}, f32[64,16]{HBM}) all-gather-start(%a)", 4),
    (f"f32[16,16]{HBM} all-reduce-start(%a)", 1)])
def test_a_message_is_read_and_written_once(started, written):
    out = "f32[64,16]" if written == 4 else "f32[16,16]"
    found = one([f"%start = {started}, channel_id=1, replica_groups={{{{0,1,2,3}}}}",
                 f"ROOT %done = {out}{HBM} all-gather-done(%start)"])
    assert found == 1 + written


# A gather that overlaps with two products: started, handed on beside a product, ended.
CHAIN = """\
%start (p: f32[4,16]) -> (f32[4,16], f32[16,16], s32[2], u32[]) {
  %p = f32[4,16]{1,0:T(8,128)} parameter(0)
  %g.1 = f32[16,16]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}
  ROOT %s = (f32[4,16]{1,0:T(8,128)}, f32[16,16]{1,0:T(8,128)}, s32[2]{0:S(4)}, u32[]{:S(2)}) \
custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%beside (p.1: f32[4,16], p.2: f32[16,16], p.3: f32[16,16]) -> (f32[16,16], f32[4,16], f32[16,16], \
f32[16,16]) {
  %p.1 = f32[4,16]{1,0:T(8,128)} parameter(0)
  %p.2 = f32[16,16]{1,0:T(8,128)} parameter(1)
  %p.3 = f32[16,16]{1,0:T(8,128)} parameter(2)
  %y = f32[16,16]{1,0:T(8,128)} dot(%p.3, %p.3), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g.2 = f32[16,16]{1,0:T(8,128)} all-gather(%p.1), channel_id=1, replica_groups={{0,1,2,3}}
  ROOT %t = (f32[16,16]{1,0:T(8,128)}, f32[4,16]{1,0:T(8,128)}, f32[16,16]{1,0:T(8,128)}, \
f32[16,16]{1,0:T(8,128)}) tuple(%y, %p.1, %g.2, %p.2)
}

%end (p.4: f32[4,16], p.5: f32[16,16]) -> f32[16,16] {
  %p.4 = f32[4,16]{1,0:T(8,128)} parameter(0)
  %p.5 = f32[16,16]{1,0:T(8,128)} parameter(1)
  %g.3 = f32[16,16]{1,0:T(8,128)} all-gather(%p.4), channel_id=1, replica_groups={{0,1,2,3}}
  ROOT %d = f32[16,16]{1,0:T(8,128)} custom-call(%p.4, %p.5, %g.3), \
custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[4,16], b: f32[16,16]) -> (f32[16,16], f32[16,16]) {
  %a = f32[4,16]{1,0:T(8,128)} parameter(0)
  %b = f32[16,16]{1,0:T(8,128)} parameter(1)
  %one = (f32[4,16]{1,0:T(8,128)}, f32[16,16]{1,0:T(8,128)}, s32[2]{0:S(4)}, u32[]{:S(2)}) \
fusion(%a), kind=kCustom, calls=%start
  %shard = f32[4,16]{1,0:T(8,128)} get-tuple-element(%one), index=0
  %room = f32[16,16]{1,0:T(8,128)} get-tuple-element(%one), index=1
  %two = (f32[16,16]{1,0:T(8,128)}, f32[4,16]{1,0:T(8,128)}, f32[16,16]{1,0:T(8,128)}, \
f32[16,16]{1,0:T(8,128)}) fusion(%shard, %room, %b), kind=kOutput, calls=%beside
  %shard.2 = f32[4,16]{1,0:T(8,128)} get-tuple-element(%two), index=1
  %room.2 = f32[16,16]{1,0:T(8,128)} get-tuple-element(%two), index=2
  %three = f32[16,16]{1,0:T(8,128)} fusion(%shard.2, %room.2), kind=kCustom, calls=%end
  %y.1 = f32[16,16]{1,0:T(8,128)} get-tuple-element(%two), index=0
  ROOT %all = (f32[16,16]{1,0:T(8,128)}, f32[16,16]{1,0:T(8,128)}) tuple(%y.1, %three)
}
"""


def test_a_gather_on_its_way_through_fusions_is_read_and_written_once():
    gather, product = KB / 4 + KB, 2 * KB
    cost = count(CHAIN)
    assert cost.bytes == gather + product
    assert cost.collectives == {"all-gather": KB * 3 / 4}


VIEW = """\
%view (q: f32[16,16]) -> f32[256] {
  %q = f32[16,16]{1,0} parameter(0)
  ROOT %v = f32[256]{0} bitcast(%q)
}

%sum (p: f32[16,16]) -> f32[256] {
  %p = f32[16,16]{1,0} parameter(0)
  %f = f32[256]{0} fusion(%p), kind=kLoop, calls=%view
  ROOT %n = f32[256]{0} negate(%f)
}

"""


def test_what_is_read_by_another_name_is_read():
    """A fusion in a fusion that only says how the array is looked at."""
    found = count(VIEW + main(["%a = f32[16,16]{1,0} parameter(0)",
                               "ROOT %r = f32[256]{0} fusion(%a), kind=kLoop, calls=%sum"],
                              "f32[256]")).bytes
    assert found == 2 * KB
