"""The command `guardjax`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import guardjax
from guardjax.cli import (aot, data, demo, evaluate, experiment, export, judge, pairs, policy,
                          reproduce, rollouts, sweep, train, verify)
from guardjax.cli.stopped import told

_DESCRIPTION = """\
Image guards that obey the policy they are shown: train them, measure them, use them.
"""
_EPILOG = """\
start here:
  guardjax demo --out runs/demo                          train small versions and write a report
  guardjax judge PICTURES --policy FILE --out FILE.jsonl  verdicts on your own pictures
"""
_VERBS = (demo, train, rollouts, experiment, sweep, evaluate, reproduce, judge, verify, export,
          data, pairs, policy, aot)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="guardjax", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=guardjax.__version__)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in _VERBS:
        verb.add_parser(subparsers)
    args = parser.parse_args(argv)
    # transformers would greet with "PyTorch was not found. Models won't be available".
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    return told(args.verb, lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
