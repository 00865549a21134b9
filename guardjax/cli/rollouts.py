"""`guardjax rollouts`: what a training sampled, and whether its reward is being gamed."""

from __future__ import annotations

import argparse
import pathlib

from guardjax.cli.usage import fail, plain, positive

_DESCRIPTION = """\
Make one HTML page of a run's folder, finished or still training: the groups of answers that GRPO
sampled, with their rewards, to filter by step, reward, policy and verdict; a panel of signs that
the reward is being gamed; and the curves (reward, verdicts, KL, clip fraction, entropy, length,
gradient norm, groups without signal), which are also written as PNG files into RUN/curves.
"""
_EPILOG = """\
examples:
  guardjax rollouts runs/grpo_varied
  guardjax rollouts runs/safeguard_vl/grpo_varied/seed0 --out gaming.html

How often groups are kept is log.groups_every_steps of the config (default 10; 0 keeps none). The
page needs no server and loads nothing. Begin with the signs that say "look", then filter the groups
by reward and "wrong": what a wrong answer is paid for is what the model will learn.

exit status: 0 written, also where a sign is raised; 2 bad input.
"""
PAGE = "rollouts.html"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `rollouts`."""
    parser = subparsers.add_parser(
        "rollouts", help="show what a training sampled, and signs of reward gaming",
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="RUN", help="a run's folder")
    parser.add_argument("--out", metavar="FILE.html", help=f"the page (default: RUN/{PAGE})")
    parser.add_argument("--groups", type=positive, default=400, metavar="N",
                        help="groups in the page at most, of steps spread evenly (default: 400)")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    # Drawing takes seconds to import; a typing error should not.
    from guardjax.atomic import write_text
    from guardjax.rollouts.curves import FOLDER, save_curves
    from guardjax.rollouts.page import missing_parts, render_page
    from guardjax.rollouts.run_log import RunLogError, read_run
    from guardjax.rollouts.signs import find_signs

    try:
        run = read_run(args.folder)
    except RunLogError as error:
        return fail("rollouts", error)
    page = pathlib.Path(args.out) if args.out else run.folder / PAGE
    if page.is_dir():
        return fail("rollouts", f"--out {page} is a folder; name a file, such as {page / PAGE}")
    curves, signs = save_curves(run.folder, run.metrics), find_signs(run)
    write_text(page, render_page(run, signs, curves, groups=args.groups))
    if missing := missing_parts(run):
        print(plain(missing))
    for sign in signs:
        if sign.raised:
            print(plain(f"look: {sign.title}. {sign.reading}"))
    print(plain(f"curves: {len(curves)} in {run.folder / FOLDER}"))
    print(plain(f"page: {page}"))
    return 0
