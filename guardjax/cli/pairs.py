"""`guardjax pairs`: edited pairs of pictures, and captions that keep what matters to safety."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from guardjax.cli.usage import fail, positive

_EPILOG = """\
examples:
  guardjax pairs build --world 20 --policy house.yaml --out runs/pairs        exact, no network
  guardjax pairs build --pictures PHOTOS --policy house.yaml --out runs/pairs \\
      --assessor-url http://localhost:8000/v1 --assessor-model Qwen/Qwen2.5-VL-72B-Instruct \\
      --editor-url http://localhost:8001/v1 --editor-model Qwen/Qwen-Image-Edit
  guardjax eval --dataset safeeditbench --dir runs/pairs --split all --out runs/on_pairs
  guardjax pairs recaption --pictures PHOTOS --out runs/captions --assessor-url URL ...
  guardjax train --config configs/own_data/captions.py dataset.dir=runs/captions --out runs/sft

Each picture that the policy forbids is edited, by an instruction of the assessor's, until the
assessor finds nothing left to forbid and the change is one local one. Servers speak OpenAI's
protocol; a key is read from the environment (--key-variable). Every answer is kept in --kept, so a
run that was stopped asks nothing twice, and a set can be made again. The labels are the tools':
have people look at them before you measure anybody by them.

Written by build to OUT: images/, metadata.jsonl (as SafeEditBench has it), left_out.jsonl (why),
tools.json. By recaption: images/, metadata.jsonl (file_name, draft, caption), left_out.jsonl and
assessor.json: the data set format "captions", which SFT learns (configs/own_data/captions.py).
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `pairs` with `build` and `recaption`."""
    parser = subparsers.add_parser(
        "pairs", help="make edited pairs, or captions, of pictures",
        description="Edited pairs of pictures, and captions, by an assessor and an editor.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="forbidden pictures and their allowed twins")
    build.add_argument("--policy", required=True, metavar="FILE", help="who forbids")
    build.add_argument("--label-under", nargs="*", default=[], metavar="FILE",
                       help="further policies to label both pictures under")
    build.add_argument("--attempts", type=positive, default=3, metavar="N",
                       help="edits of one picture (default: 3)")
    build.add_argument("--editor-url", metavar="URL", help="server of the editor, up to /v1")
    build.add_argument("--editor-model", metavar="NAME", help="the editor's name there")
    recaption = actions.add_parser("recaption", help="captions that keep what matters to safety")
    for action in (build, recaption):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--world", type=positive, metavar="N",
                           help="N scenes of the policy world, with its own exact tools")
        which.add_argument("--pictures", metavar="DIR", help="a folder of pictures")
        action.add_argument("--out", required=True, help="where the result goes")
        action.add_argument("--assessor-url", metavar="URL",
                            help="server of the assessor, up to /v1")
        action.add_argument("--assessor-model", metavar="NAME", help="the assessor's name there")
        action.add_argument("--key-variable", default="OPENAI_API_KEY", metavar="NAME",
                            help="environment variable with the key (default: OPENAI_API_KEY)")
        action.add_argument("--workers", type=positive, default=4, metavar="N",
                            help="pictures at a time (default: 4)")
        action.add_argument("--kept", metavar="DIR",
                            help="folder of the tools' answers (default: in the cache)")
        action.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from guardjax.pairs.tools import ToolError, ToolUnavailable

    try:
        return _build(args) if args.action == "build" else _recaption(args)
    except ToolUnavailable as error:
        return fail("pairs", f"{error}. What was answered is kept: the same command goes on",
                    status=1)
    except ToolError as error:
        return fail("pairs", error)


def _build(args: argparse.Namespace) -> int:
    from guardjax.pairs.build import PairSettings, make_pairs
    from guardjax.pairs.folder import check_free, save_pairs
    from guardjax.policies import load_policy

    check_free(pathlib.Path(args.out))
    policy, *others = [load_policy(path) for path in (args.policy, *args.label_under)]
    settings = PairSettings(args.attempts, args.workers)
    sources, assessor, editor = _tools(args)
    found = make_pairs(sources, policy, assessor, editor, settings, others)
    written = save_pairs(args.out, _shown(found, len(sources), "pairs"), policy, others, settings,
                         {"assessor": assessor.identity, "editor": editor.identity})
    print(f"{written.made} pairs, {written.left_out} pictures left out (left_out.jsonl says why): "
          f"{args.out}")
    return 0


def _recaption(args: argparse.Namespace) -> int:
    from guardjax.pairs.folder import check_free, save_captions
    from guardjax.pairs.recaption import recaption

    check_free(pathlib.Path(args.out))
    sources, assessor, _ = _tools(args)
    found = recaption(sources, assessor, args.workers)
    written = save_captions(args.out, _shown(found, len(sources), "captions"), assessor.identity)
    print(f"{written.made} captions, {written.left_out} pictures left out (left_out.jsonl says "
          f"why): {args.out}")
    return 0


def _tools(args: argparse.Namespace) -> tuple[Sequence[Any], Any, Any]:
    """Sources, assessor and editor; a recaption needs no editor."""
    from guardjax.cache_dir import cache_dir
    from guardjax.pairs.http_tools import Endpoint, HttpAssessor, HttpEditor
    from guardjax.pairs.kept import KeptAssessor, KeptEditor
    from guardjax.pairs.tools import ToolError

    if args.world:
        return _world_tools(args.world)
    kept = pathlib.Path(args.kept or cache_dir() / "tools")
    names = ("assessor", "editor") if args.action == "build" else ("assessor",)
    endpoints = []
    for name in names:
        url, model = getattr(args, f"{name}_url"), getattr(args, f"{name}_model")
        if not url or not model:
            raise ToolError(f"pictures of your own need an {name}: give --{name}-url and "
                            f"--{name}-model, or take --world N with the exact tools")
        endpoints.append(Endpoint(url, model, args.key_variable))
    assessor = KeptAssessor(HttpAssessor(endpoints[0]), kept)
    editor = KeptEditor(HttpEditor(endpoints[1]), kept) if len(endpoints) > 1 else None
    return _folder_sources(pathlib.Path(args.pictures)), assessor, editor


def _world_tools(number: int) -> tuple[Sequence[Any], Any, Any]:
    """Scenes of the training split, none of which is measured on; nothing needs to be kept."""
    from guardjax.pairs.build import Source
    from guardjax.pairs.world_tools import WorldStudio
    from guardjax.world.scene import render, sample_scene

    scenes = [sample_scene(seed) for seed in range(number)]
    studio = WorldStudio(scenes)
    sources = [Source(f"scene{scene.seed:05}", lambda scene=scene: render(scene))
               for scene in scenes]
    return sources, studio, studio


def _folder_sources(folder: pathlib.Path) -> Sequence[Any]:
    from guardjax.data.intake import load_picture
    from guardjax.pairs.build import Source
    from guardjax.pairs.tools import ToolError

    if not folder.is_dir():
        raise ToolError(f"--pictures {folder}: there is no such folder")
    files = sorted(path for path in folder.iterdir() if path.is_file()
                   and not path.name.startswith("."))
    if not files:
        raise ToolError(f"--pictures {folder}: the folder is empty")
    stems = [path.stem for path in files]
    return [Source(path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_"),
                   lambda path=path: load_picture(path).pixels) for path in files]


def _shown(found: Iterable[Any], total: int, what: str) -> Iterator[Any]:
    """The same, with a bar that says how long it will take."""
    from rich.progress import track

    return iter(track(found, total=total, description=what, transient=True))
