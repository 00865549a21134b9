"""`guardjax export`: a model directory that transformers loads, adapters merged, with a card."""

from __future__ import annotations

import argparse
import pathlib
import re
import shutil
import tempfile

from guardjax.cli.assets import model_dir
from guardjax.cli.usage import fail, plain, positive

# Whatever of these the source has goes along byte for byte; nothing else does.
_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
    "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "prompt_template.json", "lengths.json",
)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

_DESCRIPTION = """\
Write a model as one directory in Hugging Face's format: weights with adapters merged, config,
tokenizer, image processor, and a generated model card. The directory appears whole or not at all.
"""

_EPILOG = """\
examples:
  guardjax export runs/grpo_varied/model --out my-guard --dtype bfloat16
  guardjax export runs/grpo_varied --checkpoint best --out my-guard
  guardjax export Qwen2.5-VL-7B-Instruct --adapter my-lora --out my-guard --license apache-2.0

A run's folder `model` has its own adapters merged already; --adapter takes those of PEFT. With
--checkpoint a run's folder is named itself, and what is written is what its `model` would be had it
ended at that step; it may still be running.
exit status: 0 it is written, 2 the source or an option is wrong.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `export`."""
    parser = subparsers.add_parser(
        "export", help="write a model for transformers, with a model card",
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base'; with "
                             "--checkpoint a run's folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty directory")
    parser.add_argument("--checkpoint", metavar="WHICH",
                        help="of a run's folder: best (by checkpoint.best_metric), latest or a "
                             "step's number")
    parser.add_argument("--adapter", metavar="DIR", help="an adapter of PEFT to merge (LoRA)")
    parser.add_argument("--dtype", default="same",
                        choices=("same", "float32", "bfloat16", "float16"),
                        help="type of the weights (default: that of the source)")
    parser.add_argument("--shard-mb", type=positive, default=4096, metavar="N",
                        help="largest file in MiB (default: 4096)")
    parser.add_argument("--base-model", type=_hub_name, metavar="NAME",
                        help="for the card: the model that it was made from")
    parser.add_argument("--license", type=_hub_name, metavar="ID",
                        help="for the card: the licence, as the hub abbreviates it")
    parser.add_argument("--results", metavar="DIR",
                        help="for the card: a folder of guardjax eval with this model's results "
                             "(default: those beside a run's folder 'model', if there are any)")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    target = pathlib.Path(args.out).resolve()   # a link cannot be replaced by a folder
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} exists and is not an empty directory; choose another")
        model_hash = _export(args, target)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        return fail("export", error)
    print(plain(f"{target}: model {model_hash}"))
    return 0


def _export(args: argparse.Namespace, target: pathlib.Path) -> str:
    """Writes the model, or that of the run's checkpoint, to `target`; returns its hash."""
    if args.checkpoint is None:
        return _write(args, model_dir(args.model), target)
    from guardjax.cli.checkpoint_model import write_checkpoint
    from guardjax.train.saved import CheckpointError

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        source, run = pathlib.Path(folder) / "model", pathlib.Path(args.model)
        try:
            step = write_checkpoint(run, args.checkpoint, source)
        except CheckpointError as error:
            raise ValueError(str(error)) from error
        return _write(args, source, target, f"{run.absolute().name}, step {step}")


def _write(args: argparse.Namespace, source: pathlib.Path, target: pathlib.Path,
           origin: str = "") -> str:
    """Writes everything next to `target`, then into place; returns the model's hash.

    `origin` names for the card what the source was made from, where its own name says nothing.
    """
    # These take seconds to import; a typing error should not.
    import guardjax.models as models
    from guardjax.cli.card_results import CardResultsError, card_results, run_results
    from guardjax.cli.model_card import CardFacts, model_card
    from guardjax.data.batching import load_batcher
    from guardjax.eval.guard import weights_hash
    from guardjax.models.hf_names import tensor_table
    from guardjax.models.hf_weights import read_config
    from guardjax.models.peft_adapter import load_peft
    from guardjax.models.shards import stored_dtype
    from guardjax.train.config import LoraConfig
    from guardjax.train.lora import apply_adapters

    cfg = read_config(source)
    load_batcher(source)        # the parts fit each other, before the weights are read
    stored = stored_dtype(source)
    adapter = load_peft(args.adapter, cfg) if args.adapter else None
    if args.results and adapter is not None:
        raise CardResultsError("--results with --adapter: they were measured without it. Export, "
                               "evaluate what was exported, and export that with --results")
    results = None
    if adapter is None:
        measured = weights_hash(source)
        results = (card_results(pathlib.Path(args.results), measured) if args.results
                   else run_results(source.absolute(), measured))
    dtype = stored if args.dtype == "same" else args.dtype
    # Adapters are added before rounding; without them nothing needs to be wider than it ends.
    _, params = models.load_hf(source, cfg, dtype=dtype if adapter is None else "float32")
    named = source.absolute()       # "." has no name
    merged = base = ""
    if adapter is not None:
        params = apply_adapters(params, adapter.tree, LoraConfig(adapter.rank, adapter.alpha))
        merged = (f"{pathlib.Path(args.adapter).absolute().name}, rank {adapter.rank}, alpha "
                  f"{adapter.alpha:g}, merged into {adapter.num_modules} kernels")
        base = adapter.base if _HUB_NAME.fullmatch(adapter.base) else ""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        staging = pathlib.Path(folder) / "model"
        models.save_hf(params, cfg, staging, dtype=dtype, max_shard_bytes=args.shard_mb * 2**20)
        for name in _FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, staging / name)
        model_hash = weights_hash(staging)
        card = model_card(CardFacts(
            name=target.name, cfg=cfg, dtype=dtype, model_hash=model_hash,
            num_parameters=sum(spec.size for spec in tensor_table(cfg)),
            source=origin or (
                "/".join(named.parts[-2:]) if named.name == "model" else named.name),
            adapter=merged, base=args.base_model or base, licence=args.license or "",
            results=results, rounded=dtype != stored))
        (staging / "README.md").write_text(card, encoding="utf-8")
        load_batcher(staging)
        staging.rename(target)
    return model_hash


def _hub_name(text: str) -> str:
    """A name as the hub allows them, which is safe in a card's header."""
    if not _HUB_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name such as apache-2.0 or Qwen/Name")
    return text
