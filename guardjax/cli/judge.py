"""`guardjax judge`: verdicts on a person's own pictures under a person's own policy."""

from __future__ import annotations

import argparse
import collections
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from guardjax.cli.assets import model_dir
from guardjax.cli.compute_flags import add_compute_flags
from guardjax.cli.scoring_flags import add_scoring_flags, scoring_of
from guardjax.cli.usage import fail, plain, positive
from guardjax.eval.scoring import ScoringError
from guardjax.eval.verdict_record import VerdictRecord
from guardjax.policies import PolicyError, lint_policy, load_policy

_COLOURS = {"safe": "green", "unsafe": "red", "needs_review": "yellow"}

_DESCRIPTION = """\
Judge pictures under a policy. Every picture gets one line of JSON with the decision (safe, unsafe
or needs_review), the rules it violates, the rationale, a status, and hashes of picture, policy and
model. Whatever goes wrong with a picture ends as needs_review with a reason, never as safe.
"""

_EPILOG = """\
example:
  guardjax judge holiday/ cat.png --policy house-rules.yaml --out verdicts.jsonl

A folder stands for all files in it; a run that was stopped goes on where it was, and pictures that
are judged already are not judged again. One output file belongs to one policy and one model.

exit status: 0 every picture has a verdict, 1 some need review, 2 nothing was judged.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `judge`."""
    parser = subparsers.add_parser(
        "judge", help="judge your own pictures under your own policy", description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a picture or a folder")
    parser.add_argument("--policy", required=True, metavar="FILE", help="policy in YAML")
    parser.add_argument("--model", default="guard", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base' (default: guard)")
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="where verdicts go")
    parser.add_argument("--wording", type=int, default=0, metavar="SEED",
                        help="seed of the policy's wording (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N",
                        help="pictures judged at a time (default: 16)")
    parser.add_argument("--quiet", action="store_true", help="print the summary only")
    add_scoring_flags(parser)
    add_compute_flags(parser)
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    try:
        policy, scoring = load_policy(args.policy), scoring_of(args)
    except (PolicyError, ScoringError) as error:
        return fail("judge", error)
    for finding in lint_policy(policy):
        print(plain(f"{args.policy}: {finding}"), file=sys.stderr)
    # The model's libraries take seconds to import; a typing error in the policy should not.
    from guardjax.data.prompts import PromptError
    from guardjax.eval.guard import Guard
    from guardjax.eval.journal import OutputMismatch
    from guardjax.eval.judge import judge_pictures
    from guardjax.models.attention import AttentionError
    from guardjax.train.compilation import enable_compile_cache

    enable_compile_cache()
    try:
        guard = Guard.load(model_dir(args.model), batch=args.batch_size, dtype=args.dtype,
                           attention=args.attention, scoring=scoring, template=args.template)
    except (AttentionError, PromptError, ScoringError) as error:
        return fail("judge", error)
    except (OSError, ValueError) as error:
        return fail("judge", f"no model: {error}")
    try:
        records = judge_pictures(
            args.pictures, policy, guard.answer, model_hash=guard.model_hash, out=args.out,
            wording=args.wording, batch_size=args.batch_size, scoring=scoring)
    except OutputMismatch as error:
        return fail("judge", error)
    except OSError as error:
        return fail("judge", f"{args.out} cannot be written: {error}")
    if not records:
        return fail("judge", "there is no picture in " + ", ".join(args.pictures))
    console = Console()
    if not args.quiet:
        console.print(_table(records))
    counts = collections.Counter(record.decision for record in records)
    console.print(f"{len(records)} pictures: {counts['safe']} safe, {counts['unsafe']} unsafe, "
                  f"{counts['needs_review']} to review", highlight=False)
    console.print(Text(f"verdicts in {args.out}"))
    return 1 if counts["needs_review"] else 0


def _table(records: list[VerdictRecord]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("Picture", "Decision", "Rules", "Why"):
        table.add_column(title, overflow="fold")
    for record in records:
        why = record.rationale or ""
        if record.status != "ok":
            why = record.status + (f": {record.problem}" if record.status.startswith("error:")
                                   else "")
        decision = Text(record.decision.replace("_", " "), _COLOURS[record.decision])
        table.add_row(Text(plain(record.picture)), decision, Text(", ".join(record.rule_ids)),
                      Text(plain(why)))
    return table
