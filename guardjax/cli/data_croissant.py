"""`guardjax data croissant`: metadata that catalogues of data sets read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from guardjax.cli.usage import plain
from guardjax.data import croissant
from guardjax.json_file import write_json

FORMATS = ("world", "pairs")


def add_action(actions: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the action `croissant` to the verb `data`."""
    action = actions.add_parser(
        "croissant", help="write Croissant 1.0 metadata beside the data",
        description="Writes DIR/croissant.json: files with hashes, fields, licence.")
    action.add_argument("directory", metavar="DIR",
                        help="a build of the world, or a folder of guardjax pairs build")
    action.add_argument("--format", choices=FORMATS,
                        help="which of the two (default: what the folder looks like)")
    action.add_argument("--url", default="", help="where the data are published")
    action.add_argument("--license", default="", metavar="URL",
                        help="licence of pairs, whose pictures are yours; the world's is known")
    action.add_argument("--creator", default="", metavar="NAME", help="who made the pairs")
    return action


def write(args: argparse.Namespace, build_of: Callable[[Path], Path]) -> int:
    """Writes the file and says what a published set would have to add; returns the exit status.

    `build_of` finds the build in a folder that holds one.
    """
    folder = Path(args.directory)
    kind = args.format or ("pairs" if (folder / "tools.json").is_file() else "world")
    if kind == "world":
        if args.license or args.creator:
            raise croissant.CroissantError("licence and creator of the policy world are known: "
                                           "leave --license and --creator out")
        folder = build_of(folder)
        found = croissant.of_world(folder, url=args.url)
    else:
        found = croissant.of_pairs(folder, url=args.url, licence=args.license,
                                   creator=args.creator)
    write_json(folder / croissant.FILE, found)
    for name in croissant.missing(found):
        print(plain(f"guardjax data: {name} is not known; before you publish, give it with "
                    f"--{name}"), file=sys.stderr)
    print(plain(str(folder / croissant.FILE)))
    return 0
