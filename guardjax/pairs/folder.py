"""Pairs, and captions, as folders that readers of data sets take, written whole or not at all.

Pairs, as SafeEditBench has them:

    OUT/images/NAME-before.png, NAME-after.png
    OUT/metadata.jsonl      a row a (picture, policy): file_name, safety_label, policy_name, policy,
                            image_path, pair_id, role, instruction
    OUT/left_out.jsonl      pictures without a twin, and why
    OUT/tools.json          who assessed and edited, and with what limits

Captions (format "captions"):

    OUT/images/NAME.png
    OUT/metadata.jsonl      a row a picture: file_name, draft, caption
    OUT/left_out.jsonl      pictures without a caption, and why
    OUT/assessor.json       who wrote them
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from guardjax.atomic import new_mode, write_bytes, write_text
from guardjax.json_file import write_json
from guardjax.pairs.build import LeftOut, Pair, PairSettings
from guardjax.pairs.kept import png_bytes
from guardjax.pairs.recaption import Caption
from guardjax.pairs.tools import ToolError
from guardjax.policies import Policy

ROLES = ("before", "after")


@dataclasses.dataclass(frozen=True)
class Written:
    """How many pairs or captions there are, and of how many pictures there is none."""

    made: int
    left_out: int


def save_pairs(out: str | os.PathLike[str], found: Iterable[Pair | LeftOut], policy: Policy,
               label_under: Sequence[Policy], settings: PairSettings, tools: dict[str, str]
               ) -> Written:
    """Writes everything to a folder beside `out`, which then takes its name.

    Raises:
      ToolError: `out` is there already, or no picture found a twin (nothing is written then).
    """
    with _whole(pathlib.Path(out)) as workshop:
        written = _save(workshop, found, lambda one: _save_pair(
            workshop, one, policy, label_under), "found a twin")
        write_json(workshop / "tools.json", {
            **tools, "policy": policy.id, "policy_hash": policy.hash,
            "settings": dataclasses.asdict(settings)})
    return written


def save_captions(out: str | os.PathLike[str], found: Iterable[Caption | LeftOut], assessor: str
                  ) -> Written:
    """Writes everything to a folder beside `out`, which then takes its name.

    Raises:
      ToolError: `out` is there already, or no picture has a caption (nothing is written then).
    """
    def save(workshop: pathlib.Path, one: Caption) -> list[dict[str, Any]]:
        name = f"images/{one.name}.png"
        write_bytes(workshop / name, png_bytes(one.picture))
        return [{"file_name": name, "draft": one.draft, "caption": one.target}]

    with _whole(pathlib.Path(out)) as workshop:
        written = _save(workshop, found, lambda one: save(workshop, one), "has a caption")
        write_json(workshop / "assessor.json", {"assessor": assessor})
    return written


@contextlib.contextmanager
def _whole(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that takes the name `out` at the end of the block, or goes if it fails."""
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    workshop = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield workshop
        workshop.chmod(new_mode(0o777))
        workshop.rename(out)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _save(workshop: pathlib.Path, found: Iterable[Any],
          save: Callable[[Any], list[dict[str, Any]]], made: str) -> Written:
    """Writes `metadata.jsonl`, of what `save` says of each, and `left_out.jsonl`."""
    rows: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    number = 0
    for one in found:
        if isinstance(one, LeftOut):
            left_out.append(one)
            continue
        number += 1
        rows += save(one)
    if not number:
        why = f", the first: {left_out[0].name}: {left_out[0].reason}" if left_out else ""
        raise ToolError(f"none of {len(left_out)} pictures {made}{why}")
    write_text(workshop / "metadata.jsonl", _lines(rows))
    write_text(workshop / "left_out.jsonl", _lines([dataclasses.asdict(one) for one in left_out]))
    return Written(number, len(left_out))


def check_free(out: pathlib.Path) -> None:
    """Checks that a result would not lie over another one. Raises `ToolError`."""
    if out.exists():
        raise ToolError(f"{out} is there already: choose another folder, or remove it")


def _save_pair(folder: pathlib.Path, pair: Pair, policy: Policy, label_under: Sequence[Policy]
               ) -> list[dict[str, Any]]:
    rows = []
    labels = {policy.id: ("unsafe", "safe")} | pair.labels
    for role, picture, place in zip(ROLES, (pair.before, pair.after), range(2), strict=True):
        name = f"images/{pair.name}-{role}.png"
        write_bytes(folder / name, png_bytes(picture))
        rows += [{"file_name": name, "image_path": name, "safety_label": labels[each.id][place],
                  "policy_name": each.id, "policy": each.render(), "pair_id": pair.name,
                  "role": role, "instruction": pair.instruction}
                 for each in (policy, *label_under)]
    return rows


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
