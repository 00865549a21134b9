"""Pairs as a folder that the readers of SafeEditBench take, written whole or not at all.

    OUT/images/NAME-before.png, NAME-after.png
    OUT/metadata.jsonl      a row a (picture, policy): file_name, safety_label, policy_name, policy,
                            image_path, pair_id, role, instruction
    OUT/left_out.jsonl      pictures without a twin, and why
    OUT/tools.json          who assessed and edited, and with what limits
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from guardjax.atomic import new_mode, write_bytes, write_text
from guardjax.json_file import write_json
from guardjax.pairs.build import LeftOut, Pair, PairSettings
from guardjax.pairs.kept import png_bytes
from guardjax.pairs.tools import ToolError
from guardjax.policies import Policy

ROLES = ("before", "after")


@dataclasses.dataclass(frozen=True)
class Written:
    """How many pictures found a twin, and how many did not."""

    pairs: int
    left_out: int


def save_pairs(out: str | os.PathLike[str], found: Iterable[Pair | LeftOut], policy: Policy,
               label_under: Sequence[Policy], settings: PairSettings, tools: dict[str, str]
               ) -> Written:
    """Writes everything to a folder beside `out`, which then takes its name.

    Raises:
      ToolError: `out` is there already, or no picture found a twin (nothing is written then).
    """
    out = pathlib.Path(out)
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    workshop = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        rows, left_out, pairs = [], [], 0
        for one in found:
            if isinstance(one, LeftOut):
                left_out.append(dataclasses.asdict(one))
                continue
            pairs += 1
            rows += _save_pair(workshop, one, policy, label_under)
        if not pairs:
            why = f", the first: {left_out[0]['name']}: {left_out[0]['reason']}" if left_out else ""
            raise ToolError(f"none of {len(left_out)} pictures found a twin{why}")
        write_text(workshop / "metadata.jsonl", _lines(rows))
        write_text(workshop / "left_out.jsonl", _lines(left_out))
        write_json(workshop / "tools.json", {
            **tools, "policy": policy.id, "policy_hash": policy.hash,
            "settings": dataclasses.asdict(settings)})
        workshop.chmod(new_mode(0o777))
        workshop.rename(out)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return Written(pairs, len(left_out))


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
