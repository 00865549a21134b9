"""Memory that loading takes: peak growth of anonymous memory over the size of the parameters.

    python benchmarks/loading.py [--gb 2] [--dtype float32] [--load-dtype float32] [--scan-layers]
                                 [--folder DIR]

A random checkpoint is written shard by shard, then read by a process of its own. Its anonymous
memory (RssAnon; pages of the file do not count) is watched from outside, against what it was after
imports and with the device open. Then it is read as a guard on a CPU does, large matrices turned,
and with the decoder's layers put in four bits as they come (extra `qlora`): peak growth over what
is kept and the largest tensor that is not, and over the parameters without that. Prints lines:
name, value, unit, bar, ok. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import pathlib
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Literal

import flax.traverse_util
import numpy as np
from bars import Line, report

import guardjax.models as models
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.hf_names import tensor_table
from guardjax.models.hf_weights import read_config
from guardjax.models.shards import DTYPES

BAR = 1.15
SHARD_BYTES = 500 * 2**20
_CHILD = """
import dataclasses, sys, jax, guardjax.models as models
from guardjax.models.hf_weights import read_config
how = {"turned": {"turned": True}, "whole": {}, "four_bits": {
    "four_bits": lambda path: path.startswith("model/layers")}}[sys.argv[4]]
if "four_bits" in how:
    import guardjax.models.nf4
jax.block_until_ready(jax.numpy.zeros(8))
print("ready", flush=True)
sys.stdin.readline()
cfg = dataclasses.replace(read_config(sys.argv[1]), scan_layers=sys.argv[3] == "True")
params = models.load_hf(sys.argv[1], cfg, dtype=sys.argv[2], **how)[1]
leaves = {id(leaf): leaf for leaf in jax.tree.leaves(params)}     # a tied head is the embedding
print(sum(leaf.on_device_size_in_bytes() for leaf in leaves.values()), flush=True)
sys.stdin.readline()
"""


@dataclasses.dataclass(frozen=True)
class RandomLeaf:
    """A parameter that is drawn when it is asked for, so that no model is ever in memory."""

    shape: tuple[int, ...]
    seed: int

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        del copy
        drawn = np.random.default_rng(self.seed).random(self.shape, np.float32)
        return drawn.astype(dtype or np.float32, copy=False)


def config_of(num_bytes: int) -> ModelConfig:
    """The release's vocabulary and vision width, and as many layers as fill `num_bytes`."""
    vision = VisionConfig(depth=4, hidden_size=1280, intermediate_size=3420, num_heads=16,
                          out_hidden_size=1024, fullatt_block_indexes=(3,))

    def config(layers: int) -> ModelConfig:
        return ModelConfig(vision, TextConfig(
            vocab_size=151936, hidden_size=1024, intermediate_size=4096, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=2, mrope_section=(16, 24, 24)),
            tie_word_embeddings=True)

    one, two = (4 * sum(spec.size for spec in tensor_table(config(n))) for n in (1, 2))
    return config(max(1, round((num_bytes - one) / (two - one)) + 1))


def write_random(folder: pathlib.Path, num_bytes: int, dtype: str) -> None:
    """Writes a checkpoint whose parameters in float32 take about `num_bytes`."""
    cfg = config_of(num_bytes)
    flat = {spec.path: RandomLeaf(spec.our_shape, number)
            for number, spec in enumerate(tensor_table(cfg))}
    models.save_hf(flax.traverse_util.unflatten_dict(flat), cfg, folder, dtype=dtype,
                   max_shard_bytes=SHARD_BYTES)


def peak_growth(folder: pathlib.Path, dtype: str, scan_layers: bool,
                how: Literal["whole", "turned", "four_bits"] = "whole") -> tuple[int, int]:
    """(peak growth of RssAnon, size of what is kept), in bytes, of loading `folder`."""
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(folder), dtype,
                              str(scan_layers), how], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None and child.stdin is not None
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError("the loading process did not start; see its message above")
        base = peak = _rss_anon(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        # Loading ends with a line, which cannot be waited for while watching.
        while not select.select([child.stdout], [], [], 0.001)[0]:
            peak = max(peak, _rss_anon(child.pid))
        said = child.stdout.readline().strip()
        peak = max(peak, _rss_anon(child.pid))
        if not said.isdecimal():        # a process that ended cannot be written to
            raise RuntimeError("loading failed; see its message above")
        child.stdin.write("\n")
    return peak - base, int(said)


def _rss_anon(pid: int) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return 1024 * int(found[0].split()[1]) if found else 0      # none of a process that ended


def largest_kernel(cfg: ModelConfig, dtype: str) -> int:
    """Bytes in `dtype` of the largest tensor that is put in four bits."""
    return DTYPES[dtype].itemsize * max(
        spec.size for spec in tensor_table(cfg) if spec.is_kernel and spec.path[0] == "model")


def measurements(args: argparse.Namespace) -> Iterator[Line]:
    """Of a checkpoint that is written for them and removed again."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        model = pathlib.Path(folder) / "model"
        write_random(model, int(args.gb * 1e9), args.dtype)
        dtype = args.load_dtype or args.dtype
        growth, size = peak_growth(model, dtype, args.scan_layers)
        end = "_scanned" * args.scan_layers
        yield Line(f"loading/peak_anon{end}", growth / size, "x_parameters", most=BAR)
        turned, _ = peak_growth(model, dtype, args.scan_layers, "turned")
        yield Line(f"loading/peak_anon_turned{end}", turned / size, "x_parameters", most=BAR)
        if importlib.util.find_spec("qwix") is not None:
            growth, kept = peak_growth(model, dtype, args.scan_layers, "four_bits")
            yield Line(f"loading/peak_anon_nf4{end}",
                       growth / (kept + largest_kernel(read_config(model), dtype)),
                       "x_kept_and_largest", most=BAR)
            yield Line(f"loading/peak_anon_nf4_of_whole{end}", growth / size, "x_parameters")


def main() -> int:
    """Runs the benchmark; returns 1 above the bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="float32 parameters (default: 2)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="in the files")
    parser.add_argument("--load-dtype", choices=DTYPES, help="in memory (default: as in the files)")
    parser.add_argument("--scan-layers", action="store_true",
                        help="read into stacks (default: a leaf for every layer)")
    parser.add_argument("--folder", help="where the checkpoint is written and removed again")
    return report(measurements(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
