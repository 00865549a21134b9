"""A person's own pictures: a table with labels, or folders named `safe` and `unsafe`.

    images.csv                   columns image, label; and, if there are any, category (the id of
                                 the rule that an unsafe picture breaks, several with ";"), policy
                                 (a text, where rows have different ones), rationale, split
    train/safe/*.png             or folders; `train/` and `test/` may be left out
    train/unsafe/*.png

Where nothing says what is for training, one picture in five is for "test", chosen by its content:
two copies of a picture are never on different sides. Split "all" is everything.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from guardjax.data.datasets.record import DatasetError, ShownPolicy
from guardjax.data.datasets.schema import ALL, Facts, Schema
from guardjax.data.datasets.tables import Row, check_columns, read_rows
from guardjax.data.intake import IntakeError, read_file
from guardjax.policies.policy import text_hash

_TABLES = ("images.csv", "metadata.csv", "labels.csv", "images.jsonl", "metadata.jsonl")
_LABELS = ("safe", "unsafe")
_ONE_IN = 5         # pictures for test where nothing says which


def _load(directory: Path, split: str) -> list[Row]:
    rows = _table(directory) or _folders(directory)
    if not rows:
        raise DatasetError(
            f"{directory} has no {', '.join(_TABLES)}, and no pictures in folders safe/ and "
            "unsafe/ (or train/safe/ and so on); a table needs the columns image and label")
    if split == ALL:
        return rows
    splits = {row.values.get("split") or "" for row in rows}
    if splits == {""}:
        if split not in ("train", "test"):
            raise DatasetError(f"{directory} does not say which pictures are for {split!r}; ask "
                               "for 'train', 'test' or 'all', or give the table a column 'split'")
        return [row for row in rows if _is_test(row) == (split == "test")]
    chosen = [row for row in rows if row.values.get("split") == split]
    if not chosen:
        raise DatasetError(f"{directory} has no picture of split {split!r}; it has "
                           f"{', '.join(sorted(splits))}")
    return chosen


def _table(directory: Path) -> list[Row]:
    for name in _TABLES:
        if (directory / name).is_file():
            rows = read_rows(directory / name)
            # An image folder of the hub names its files so.
            rows = [dataclasses.replace(row, values={
                **row.values, "image": row.values.get("image", row.values.get("file_name"))})
                if "file_name" in row.values else row for row in rows]
            check_columns(rows, ("image", "label"), OWN.title)
            return rows
    return []


def _folders(directory: Path) -> list[Row]:
    rows = []
    for label in _LABELS:
        for folder in sorted((*directory.glob(label), *directory.glob(f"*/{label}"))):
            files = sorted(f for f in folder.iterdir()
                           if f.is_file() and not f.name.startswith("."))
            split = "" if folder.parent == directory else folder.parent.name
            for file in files:
                values = {"image": str(file.relative_to(directory)), "label": label, "split": split}
                rows.append(Row(values, directory / "pictures", len(rows) + 1))
    return rows


def _is_test(row: Row) -> bool:
    file = row.file.parent / str(row.values["image"])
    try:
        digest = hashlib.sha256(read_file(file)).digest()
    except IntakeError as error:
        raise DatasetError(f"{row.place}: its picture {file}: {error}") from error
    return digest[0] % _ONE_IN == 0


def _read(row: Row) -> Facts:
    image, text = row.values["image"], row.values["policy"]
    category = (row.values["category"] or "").strip()
    policy = None
    if text is not None:
        policy = ShownPolicy("", "", ())    # a cell that is empty is an error, not the other policy
        if text.strip():
            policy = ShownPolicy.written(f"policy-{text_hash(text)[:6]}", text)
    return Facts(
        row_id=image if policy is None else f"{image}/{policy.id}", image_id=image, files=(image,),
        policy=policy, rules=tuple(part.strip() for part in category.split(";") if part.strip()),
        category=category, rationale=row.values["rationale"] or "")


OWN = Schema(
    name="own", title="a table of one's own pictures", home="",
    columns={"image": "text", "label": "text"},
    optional={"category": "text", "policy": "text", "rationale": "text", "split": "text"},
    label="label", labels={"safe": "safe", "unsafe": "unsafe"},
    read=_read, load=_load, image=None, anywhere=True)
