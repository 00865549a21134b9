"""`guardjax policy`: check a policy file, read it as a model does, and draw random ones."""

from __future__ import annotations

import argparse
import sys

from guardjax.cli.usage import fail
from guardjax.policies import (
    HELD_OUT_STYLES,
    LADDER_LEVELS,
    SPLITS,
    TRAIN_STYLES,
    Policy,
    PolicyError,
    Wording,
    dump_policy,
    lint_policy,
    load_ladder,
    load_policy,
    make_splits,
)
from guardjax.world import catalogue

_EPILOG = f"""\
examples:
  guardjax policy lint house-rules.yaml
  guardjax policy show house-rules.yaml --wording 3
  guardjax policy show L3
  guardjax policy sample --count 2 > policies.txt
  guardjax policy sample --split test --index 7 --yaml > policy.yaml

POLICY is a YAML file or a level of the ladder ({", ".join(LADDER_LEVELS)}).
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `policy` with `lint`, `show` and `sample`."""
    parser = subparsers.add_parser(
        "policy", help="check, read and sample policies",
        description="A policy is data: rules over what a picture shows, with their wording.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    lint = actions.add_parser(
        "lint", help="find broken logic and smuggled instructions",
        description="Exit status: 0 no error, 1 findings of level error (with --strict of any "
                    "level), 2 a file that is no policy.")
    lint.add_argument("policies", nargs="+", metavar="POLICY", help="YAML file or ladder level")
    lint.add_argument("--strict", action="store_true", help="warnings fail too")
    lint.set_defaults(run=main)

    show = actions.add_parser("show", help="print the text that a model is shown, and the hashes")
    show.add_argument("policy", metavar="POLICY", help="YAML file or ladder level")
    show.add_argument("--wording", type=int, default=0, metavar="SEED",
                      help="seed of the wording (default: 0)")
    show.add_argument("--held-out", action="store_true", help="in the held-out styles")
    show.add_argument("--yaml", action="store_true", help="print YAML instead")
    show.set_defaults(run=main)

    sample = actions.add_parser("sample", help="draw random policies")
    sample.add_argument("--split", default="train", choices=("train", *SPLITS),
                        help="whose policies to draw (default: train)")
    sample.add_argument("--index", type=int, default=0, metavar="N",
                        help="number of the first one (default: 0)")
    sample.add_argument("--count", type=int, default=1, metavar="N",
                        help="how many (default: 1)")
    sample.add_argument("--seed", type=int, default=0, help="seed of the splits (default: 0)")
    sample.add_argument("--yaml", action="store_true", help="print YAML documents")
    sample.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    try:
        return {"lint": _lint, "show": _show, "sample": _sample}[args.action](args)
    except (PolicyError, ValueError) as error:
        return fail("policy", error)


def _lint(args: argparse.Namespace) -> int:
    category_of = catalogue.vocabulary(with_held_out=True).category_of
    status = 0
    for name in args.policies:
        try:
            policy = _open(name)
        except PolicyError as error:
            print(error, file=sys.stderr)
            status = 2
            continue
        findings = lint_policy(policy, category_of)
        for finding in findings:
            print(f"{name}: {finding}")
        if not findings:
            print(f"{name}: fine, {len(policy.rules)} rules")
        if any(args.strict or finding.level == "error" for finding in findings):
            status = max(status, 1)
    return status


def _show(args: argparse.Namespace) -> int:
    policy = _open(args.policy)
    if args.yaml:
        print(dump_policy(policy), end="")
        return 0
    wording = Wording(args.wording, HELD_OUT_STYLES if args.held_out else TRAIN_STYLES)
    text = policy.render(wording)
    print(f"{policy.title} ({policy.id}, version {policy.version})\n\n{text}\n")
    print(f"policy hash  {policy.hash}")
    print(f"text hash    {policy.text_hash(wording)}")
    print("executable   " + ("yes" if policy.executable else "no: some rules are words only"))
    return 0


def _sample(args: argparse.Namespace) -> int:
    splits = make_splits(catalogue.vocabulary(), args.seed)
    last = args.index + args.count
    if args.index < 0 or args.count < 1:
        raise ValueError("--index counts from 0 and --count from 1")
    if args.split == "train":
        policies = [splits.train_policy(index) for index in range(args.index, last)]
    else:
        held = splits.policies(args.split)
        if last > len(held):
            raise ValueError(f"split {args.split} has {len(held)} policies, 0 to {len(held) - 1}")
        policies = list(held[args.index:last])
    for place, policy in enumerate(policies):
        if args.yaml:
            print("---\n" * (len(policies) > 1) + dump_policy(policy), end="")
        else:
            wording = splits.wording(args.split, args.index + place)
            print(f"{policy.id}: {policy.render(wording)}")
    return 0


def _open(name: str) -> Policy:
    return load_ladder()[name] if name in LADDER_LEVELS else load_policy(name)
