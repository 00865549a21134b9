"""`guardjax data`: build the policy world, look at it, read its data card; check other data."""

from __future__ import annotations

import argparse
from pathlib import Path

from guardjax.atomic import write_text
from guardjax.cli import data_check, data_croissant
from guardjax.cli.usage import fail, positive
from guardjax.world import builder
from guardjax.world.beam_build import BeamBuild
from guardjax.world.card import data_card
from guardjax.world.sheet import contact_sheet

_EPILOG = """\
examples:
  guardjax data build --data-dir data --size train=400 --size test=50
  guardjax data build --data-dir data --beam --direct_num_workers=4
  guardjax data show data --split test --out sheet.png
  guardjax data card data
  guardjax data croissant runs/pairs --license https://creativecommons.org/licenses/by/4.0/
  guardjax data check --format safeeditbench SafeEditBench --card SafeEditBench.md
  guardjax data check --format own my_pictures --policy house.yaml --against-split train

DIR is a build (policy_world-...), or a folder that holds exactly one; for check, a data set;
for croissant also the folder of guardjax pairs build.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `data` with `build`, `show`, `card`, `check` and `croissant`."""
    parser = subparsers.add_parser(
        "data", help="build, show and describe the policy world; check other data sets",
        description="The policy world: real pictures with exactly known attributes.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    build = actions.add_parser("build", help="make the pictures, or find them made before")
    build.add_argument("--data-dir", required=True, metavar="DIR", help="where builds lie")
    build.add_argument("--size", action="append", type=_size, metavar="SPLIT=PAIRS",
                       help="edited pairs of a split; may be given again (default: all splits "
                            "at full size)")
    build.add_argument("--seed", type=int, default=0, help="seed of the pairs (default: 0)")
    build.add_argument("--stage", metavar="DIR",
                       help="with --beam: a folder that all its workers can write to")
    build.add_argument("--beam", nargs=argparse.REMAINDER, metavar="OPTION",
                       help="let Apache Beam make the pairs; all that follows goes to Beam")
    build.set_defaults(run=main)

    show = actions.add_parser("show", help="write a contact sheet for people")
    show.add_argument("directory", metavar="DIR", help="a build, or a folder with one build")
    show.add_argument("--split", default="train", help="split to show (default: train)")
    show.add_argument("--pairs", type=positive, default=12, metavar="N",
                      help="pairs to show (default: 12)")
    show.add_argument("--start", type=int, default=0, metavar="N",
                      help="first pair to show (default: 0)")
    show.add_argument("--columns", type=positive, default=4, metavar="N",
                      help="pictures in a row; even keeps pairs together (default: 4)")
    show.add_argument("--out", default="contact_sheet.png", metavar="FILE.png",
                      help="the sheet (default: contact_sheet.png)")
    show.set_defaults(run=main)

    card = actions.add_parser("card", help="print the data card, or write it")
    card.add_argument("directory", metavar="DIR", help="a build, or a folder with one build")
    card.add_argument("--out", metavar="FILE.md", help="write it here instead")
    card.set_defaults(run=main)

    data_check.add_action(actions).set_defaults(run=main)
    data_croissant.add_action(actions).set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    try:
        if args.action == "check":
            return data_check.check(args)
        if args.action == "croissant":
            return data_croissant.write(args, find_build)
        {"build": _build, "show": _show, "card": _card}[args.action](args)
    except ImportError as error:
        return fail("data", f"{error}; install the pictures with: pip install 'guardjax[world]'")
    except (ValueError, builder.IncompleteBuild) as error:
        return fail("data", error)
    return 0


def _build(args: argparse.Namespace) -> None:
    sizes = dict(args.size) if args.size else builder.DEFAULT_SIZES
    if args.stage and args.beam is None:
        raise ValueError("--stage is a folder for the workers of Beam: add --beam")
    beam = None if args.beam is None else BeamBuild(tuple(args.beam), args.stage)
    print(builder.build(args.data_dir, sizes, args.seed, beam=beam))


def _show(args: argparse.Namespace) -> None:
    source = builder.load(find_build(Path(args.directory)), args.split)
    first = 2 * args.start
    indices = range(first, min(first + 2 * args.pairs, len(source)))
    if first < 0 or not indices:
        raise ValueError(f"split {args.split} has {len(source) // 2} pairs; there is no pair "
                         f"{args.start}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    contact_sheet([source[index] for index in indices], args.columns).save(args.out)
    print(args.out)


def _card(args: argparse.Namespace) -> None:
    text = data_card(find_build(Path(args.directory)))
    if args.out is None:
        print(text)
        return
    write_text(args.out, text)
    print(args.out)


def find_build(directory: Path) -> Path:
    """The build that a directory is or holds. Raises `ValueError` where it is not exactly one."""
    builds = sorted(path for path in directory.glob("policy_world-*") if path.is_dir())
    if len(builds) > 1:
        raise ValueError(f"{directory} holds {len(builds)} builds; name one: "
                         + ", ".join(path.name for path in builds))
    return builds[0] if builds else directory


def _size(text: str) -> tuple[str, int]:
    split, equals, pairs = text.partition("=")
    if not split or not equals or not pairs.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=PAIRS, such as train=400")
    return split, int(pairs)
