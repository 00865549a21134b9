"""Hateful Memes (arXiv 2005.04790), MAMI (SemEval-2022 task 5), PrideMM (arXiv 2409.14703).

Whether a meme is hateful is asked under one policy each, in our words. The meme's text is in the
picture and is not shown again.
"""

from __future__ import annotations

from pathlib import Path

from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.schema import Facts, Schema
from guardjax.data.datasets.tables import Row, check_columns, read_rows

_BINARY = {"0": "safe", "1": "unsafe", "false": "safe", "true": "unsafe"}
_MAMI_KINDS = ("shaming", "stereotype", "objectification", "violence")
_MAMI_LABELS = ("file_name", "misogynous", *_MAMI_KINDS)


def _read_hateful(row: Row) -> Facts:
    return Facts(row_id=str(row.values["id"]), image_id=row.values["img"],
                 files=(row.values["img"],), text=row.values["text"])


HATEFUL_MEMES = Schema(
    name="hateful_memes", title="Hateful Memes",
    home="https://hatefulmemeschallenge.com", gated=True,
    columns={"id": "any", "img": "text", "label": "truth", "text": "text"},
    label="label", labels=_BINARY, read=_read_hateful, files=("{split}.jsonl",), image=None,
    policy="hateful_memes", split="test_seen",
    notes="Splits are train, dev_seen, dev_unseen, test_seen and test_unseen; the first test.jsonl "
          "had no labels.")


def _load_mami(directory: Path, split: str) -> list[Row]:
    """The organisers' files: a training table, and a test table with its labels in another."""
    if split == "train":
        file = _first(directory, ("training.csv", "TRAINING/training.csv", "train.csv"), split)
        return read_rows(file, delimiter="\t")
    file = _first(directory, ("Test.csv", "test/Test.csv"), split)
    labels = _first(directory, ("test_labels.txt", "test/test_labels.txt"), split)
    found = {}
    # It has no header; five numbers stand after each name.
    for number, line in enumerate(labels.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) != len(_MAMI_LABELS):
            raise DatasetError(f"{labels}, row {number} has {len(fields)} fields; MAMI has "
                               f"{len(_MAMI_LABELS)}: {', '.join(_MAMI_LABELS)}")
        found[fields[0]] = dict(zip(_MAMI_LABELS, fields, strict=True))
    rows = read_rows(file, delimiter="\t")
    check_columns(rows, ("file_name",), "MAMI")
    joined = []
    for row in rows:
        name = row.values["file_name"]
        if name not in found:
            raise DatasetError(f"{row.place}: {name!r} has no label in {labels}")
        joined.append(Row({**row.values, **found[name]}, row.file, row.number))
    return joined


def _first(directory: Path, names: tuple[str, ...], split: str) -> Path:
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise DatasetError(f"{directory} has no split {split!r} of MAMI (looked for "
                       f"{', '.join(names)}). {MAMI.how_to_get(directory)}")


def _read_mami(row: Row) -> Facts:
    name = row.values["file_name"]
    kinds = tuple(kind for kind in _MAMI_KINDS if row.values[kind])
    return Facts(row_id=name, image_id=name, files=(name, f"images/{name}"), rules=kinds,
                 category=", ".join(kinds), text=row.values["Text Transcription"])


MAMI = Schema(
    name="mami", title="MAMI",
    home="https://github.com/MIND-Lab/SemEval2022-Task-5-Multimedia-Automatic-Misogyny-"
         "Identification-MAMI-", gated=True,
    columns={"file_name": "text", "misogynous": "truth", "Text Transcription": "text",
             **dict.fromkeys(_MAMI_KINDS, "truth")},
    label="misogynous", labels=_BINARY, read=_read_mami, load=_load_mami, image=None,
    policy="mami")


def _load_pride(directory: Path, split: str) -> list[Row]:
    """One table of all splits."""
    file = directory / "PrideMM.csv"
    if not file.is_file():
        raise DatasetError(f"{directory} has no PrideMM.csv. {PRIDE_MM.how_to_get(directory)}")
    rows = read_rows(file)
    check_columns(rows, ("split",), "PrideMM")
    return [row for row in rows if row.values["split"].strip() == split]


def _read_pride(row: Row) -> Facts:
    name = row.values["name"]
    return Facts(row_id=name, image_id=name, files=(f"Images/{name}", f"images/{name}", name),
                 variant=str(row.values["target"] or ""), text=row.values["text"])


PRIDE_MM = Schema(
    name="pridemm", title="PrideMM", home="https://github.com/SiddhantBikram/MemeCLIP",
    columns={"name": "text", "text": "text", "split": "text", "hate": "truth"},
    optional={"target": "any"},
    label="hate", labels=_BINARY, read=_read_pride, load=_load_pride, image=None, policy="pridemm")
