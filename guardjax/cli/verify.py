"""`guardjax verify`: what a model directory holds and computes, as a certificate."""

from __future__ import annotations

import argparse
import pathlib

from rich.console import Console
from rich.table import Table

from guardjax.cli.assets import model_dir
from guardjax.cli.usage import fail, plain

_DESCRIPTION = """\
Read a model directory (config, weights, tokenizer, image processor), check that its parts are whole
and fit each other, and print a certificate: the shape, a hash of every tensor, and the logits on
fixed prompts of words and pictures.
"""

_EPILOG = """\
examples:
  guardjax verify Qwen2.5-VL-7B-Instruct --out 7b.json
  guardjax verify copy-of-it --against 7b.json
  guardjax verify Qwen2.5-VL-7B-Instruct --reference

exit status: 0 all is well, 1 it differs from the certificate or the reference, or computes no
numbers, 2 the directory is broken.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `verify`."""
    parser = subparsers.add_parser(
        "verify", help="check a model directory and print its certificate",
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base'")
    parser.add_argument("--out", metavar="FILE.json", help="write the certificate too")
    parser.add_argument("--against", metavar="FILE.json",
                        help="an earlier certificate that must be the same")
    parser.add_argument("--reference", action="store_true",
                        help="compare logits with transformers (needs torch)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"),
                        help="type to compute in (default: float32)")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    # The model's libraries take seconds to import; a typing error should not.
    from guardjax.data.batching import DEFAULT_WINDOW, load_batcher
    from guardjax.models.certificate import (certify, differences, load_certificate,
                                             save_certificate)
    from guardjax.models.hf_weights import read_config
    from guardjax.models.probes import make_probes

    path = model_dir(args.model)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        wanted = load_certificate(args.against) if args.against else None
        if wanted is not None and wanted.made_with.get("dtype") != args.dtype:
            raise ValueError(f"{args.against} was computed in {wanted.made_with.get('dtype')} and "
                             f"this would be in {args.dtype}; give the same --dtype")
        if args.out and args.against and pathlib.Path(args.out).resolve() == pathlib.Path(
                args.against).resolve():
            raise ValueError(f"--out would replace {args.against}, which is compared with; choose "
                             "another file")
        if args.reference and args.dtype != "float32":
            raise ValueError("--reference compares in float32; leave --dtype out")
        family = read_config(path).family     # of another nothing else is worth a word
        has_tokenizer = (path / "tokenizer.json").is_file()
        batcher = load_batcher(path) if has_tokenizer and family in DEFAULT_WINDOW else None
        found, cfg, logits = certify(path, dtype=args.dtype)
    except (ValueError, FileNotFoundError) as error:
        return fail("verify", error)
    vision, text = cfg.vision, cfg.text
    console.print(plain(f"model      {path}"))
    console.print(f"shape      {found.num_parameters:,} parameters; vision {vision.depth} x "
                  f"{vision.hidden_size}, text {text.num_hidden_layers} x {text.hidden_size}, "
                  f"{text.vocab_size:,} tokens"
                  + (", tied head" if cfg.tie_word_embeddings else ""))
    console.print(f"tensors    {len(found.tensors)}, {' and '.join(found.dtypes)}, "
                  f"sha256 {found.sha256}")
    if batcher is None:
        why = f"no prompts are made for {family}" if has_tokenizer else "there is none"
        console.print(f"tokenizer  {why}: tokenizer and image processor are not checked")
    else:
        console.print(f"tokenizer  {batcher.tokenizer.vocab_size:,} entries; pictures of "
                      f"{batcher.patches.min_pixels:,} to {batcher.patches.max_pixels:,} pixels")
    console.print(_table(found.probes))
    problems = [] if found.finite else ["some logits are not finite numbers"]
    if wanted is not None:
        said = differences(found, wanted)
        problems += said
        if not said:
            console.print(plain(f"the same as {args.against}"))
    if args.reference:
        try:
            line, problem = _compared(path, cfg, make_probes(cfg), logits)
        except ImportError as error:
            return fail("verify", f"--reference: {error}; install it with: "
                        "pip install 'guardjax[parity]'")
        except ValueError as error:
            return fail("verify", error, status=1)
        console.print(line)
        problems += problem
    if args.out:
        save_certificate(found, args.out)
        console.print(plain(f"certificate in {args.out}"))
    return fail("verify", "\n".join(problems), status=1) if problems else 0


def _table(probes: dict) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("Probe", "Tokens", "Next token", "Logit", "Log-sum-exp"):
        table.add_column(title, justify="left" if title == "Probe" else "right")
    for name, probe in probes.items():
        table.add_row(name, str(probe["tokens"]), str(probe["next"]), f"{probe['logit']:.5f}",
                      f"{probe['log_sum_exp']:.5f}")
    return table


def _compared(path: pathlib.Path, cfg, probes, logits) -> tuple[str, list[str]]:
    """(a line on the largest relative error over all probes, what is wrong with it)."""
    import numpy as np

    from guardjax.cli.reference import reference_logits
    from guardjax.models.certificate import TOLERANCE

    versions, reference = reference_logits(path, cfg, probes)
    # NumPy's maximum is NaN where any is; Python's is not.
    error = np.max([np.abs(logits[name] - theirs).max() / np.abs(theirs).max()
                    for name, theirs in reference.items()])
    line = (f"reference  {versions}: largest relative error {error:.1e}, "
            f"the limit is {TOLERANCE:.0e}")
    return line, [] if error <= TOLERANCE else ["the logits are not those of the reference"]
