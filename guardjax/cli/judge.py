"""`guardjax judge`: verdicts on a person's own pictures under a person's own policies."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.text import Text

from guardjax.cli.assets import model_dir
from guardjax.cli.compute_flags import add_compute_flags
from guardjax.cli.judge_table import one_policy, several_policies, summary
from guardjax.cli.scoring_flags import add_scoring_flags, scoring_of
from guardjax.cli.usage import fail, plain, positive
from guardjax.eval.policy_set import PolicySetError, check_policies
from guardjax.eval.scoring import ScoringError
from guardjax.policies import PolicyError, lint_policy, load_policy

_DESCRIPTION = """\
Judge pictures under a policy, or under several. Every picture gets, for each policy, one line of
JSON with the decision (safe, unsafe or needs_review), the rules it violates, the rationale, a
status, and hashes of picture, policy and model. Whatever goes wrong with a picture ends as
needs_review with a reason, never as safe.
"""

_EPILOG = """\
examples:
  guardjax judge holiday/ cat.png --policy house-rules.yaml --out verdicts.jsonl
  guardjax judge holiday/ --policy strict.yaml --policy loose.yaml --out both.jsonl
  guardjax judge holiday/ --policy house-rules.yaml --scoring probability --out scores.jsonl

A policy is a YAML file of rules in words: take guardjax/policies/ladder/L3.yaml for a pattern, and
see "guardjax policy lint" and "guardjax policy show". A folder stands for all files in it; a run
that was stopped goes on where it was, and pictures that are judged already are not judged again.
One output file belongs to one model and to one policy, or to one set of them.

Several policies at once are shown side by side, and pictures that one calls safe and another unsafe
are marked. Where a model reads the picture first (template image_first, the usual one), a picture
is encoded once for all of them.

exit status: 0 every picture is judged safe or unsafe under every policy, 1 some need review,
2 bad input, or an output that cannot be written.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `judge`."""
    parser = subparsers.add_parser(
        "judge", help="judge your own pictures under your own policies", description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE",
                        help="a picture (PNG, JPEG, WebP, GIF or BMP) or a folder")
    parser.add_argument("--policy", required=True, action="append", metavar="FILE",
                        help="policy in YAML; may be given again, to judge under several")
    parser.add_argument("--model", default="guard", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base' (default: guard)")
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="where verdicts go")
    parser.add_argument("--wording", type=int, default=0, metavar="SEED",
                        help="which of its wordings each rule is shown in (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N",
                        help="pictures judged at a time, and prompts of one forward pass; with "
                             "fewer than there are policies a picture is encoded more than once "
                             "(default: 16)")
    parser.add_argument("--quiet", action="store_true", help="print the summary only")
    add_scoring_flags(parser)
    add_compute_flags(parser)
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    try:
        policies, scoring = [load_policy(file) for file in args.policy], scoring_of(args)
        check_policies(policies, args.policy)
    except (PolicyError, PolicySetError, ScoringError) as error:
        return fail("judge", error)
    for file, policy in zip(args.policy, policies, strict=True):
        for finding in lint_policy(policy):
            print(plain(f"{file}: {finding}"), file=sys.stderr)
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
            args.pictures, policies, guard.answer, model_hash=guard.model_hash, out=args.out,
            wording=args.wording, batch_size=args.batch_size, scoring=scoring)
    except OutputMismatch as error:
        return fail("judge", error)
    except OSError as error:
        return fail("judge", f"{args.out} cannot be written: {error}")
    if not records:
        return fail("judge", "there is no picture in " + ", ".join(args.pictures))
    console = Console()
    if not args.quiet:
        console.print(one_policy(records) if len(policies) == 1 else
                      several_policies(records, console.width))
    for line in summary(records):
        console.print(line, highlight=False, markup=False)
    console.print(Text(f"verdicts in {args.out}"))
    return 1 if any(record.decision == "needs_review" for record in records) else 0
