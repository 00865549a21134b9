"""How a verb asks a guard and reads its answers: the flags that say it, the same for every verb."""

from __future__ import annotations

import argparse

from guardjax.eval.scoring import MODES, REASONED, Scoring


def add_scoring_flags(parser: argparse._ActionsContainer) -> None:
    """Adds `--scoring`, `--threshold`, `--margin`, `--min-mass` and `--template`."""
    usual = Scoring()
    parser.add_argument("--scoring", default=REASONED, choices=MODES,
                        help="reasoned: the model writes its verdict; one_token: safe or unsafe "
                             "must be its likeliest word; probability: P(unsafe) of these two "
                             "against a threshold (default: reasoned)")
    parser.add_argument("--threshold", type=float, default=usual.threshold, metavar="P",
                        help="probability: unsafe where P(unsafe) is above it "
                             f"(default: {usual.threshold})")
    parser.add_argument("--margin", type=float, default=usual.margin, metavar="P",
                        help="probability: needs review where P(unsafe) is so near to the "
                             f"threshold (default: {usual.margin}, a tie)")
    parser.add_argument("--min-mass", type=float, default=usual.min_mass, metavar="P",
                        help="probability: needs review where safe and unsafe together have less "
                             f"(default: {usual.min_mass})")
    parser.add_argument("--template", metavar="NAME",
                        help="image_first or policy_first; refused unless the model was trained "
                             "with it (default: the model's own)")


def scoring_of(args: argparse.Namespace) -> Scoring:
    """What the flags say. Raises `ScoringError`."""
    return Scoring(args.scoring, args.threshold, args.margin, args.min_mass)


def way_of_asking(args: argparse.Namespace, scoring: Scoring, template: str) -> str:
    """The options that change an answer, as stored answers are pinned to them.

    Args:
      args: with what `add_compute_flags` adds.
      scoring: how answers are asked for and read.
      template: the model's.
    """
    return f"{args.dtype}, {args.attention}, {scoring}, {template}"
