"""What a benchmark's files look like: a table of facts, and one function that reads a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from guardjax.data.datasets.record import DatasetError, ShownPolicy
from guardjax.data.datasets.tables import Row

Kind = Literal["text", "whole", "truth", "list", "any"]
# Where the hub's data sets have the tables of a split; the first pattern that finds any is taken.
PARQUET = ("data/{split}-*.parquet", "{split}-*.parquet", "data/{split}.parquet",
           "{split}.parquet", "{split}/*.parquet")
FOLDER = ("{split}/metadata.jsonl", "{split}/metadata.csv", "{split}/metadata.json")
ALL = "all"         # the split that a folder without splits has
_YES_NO = {"0": False, "1": True, "false": False, "true": True}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a row says, beside its label. See `Record`.

    `files` are the places, relative to the folder of the table, where its picture may lie; the
    first that exists is taken. `policy` is None where the data set has one for all its rows, and
    `rule` is then the id in it of what an unsafe row violates.
    """

    row_id: str
    files: tuple[str, ...] = ()
    policy: ShownPolicy | None = None
    rules: tuple[str, ...] = ()
    category: str = ""
    rationale: str = ""
    image_id: str = ""
    pair_id: str = ""
    variant: str = ""
    text: str = ""
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Schema:
    """One benchmark.

    Attributes:
      name: as `--format` takes it.
      title: what its paper calls it.
      home: where it is published, "" for a person's own; `gated` says that its terms must be
        accepted there.
      columns: those that must be there, and what they hold.
      label, labels: the column of the label, and what its values (in small letters) mean; "" and
        none where rows have captions and no verdict.
      read: a row's facts.
      optional: columns that may be there; `read` finds them as None otherwise.
      files: patterns of the tables of a split.
      image: the column of embedded pictures; an image folder has `file_name` in its place.
      own_policies: whether rows have their own policies; else `policies/NAME.yaml` is shown.
      policy: name of that file.
      split: the split that is meant where none is named.
      repeats: ids of rows that are published twice; the first is kept.
      load: reads the rows of a split where patterns do not do; (folder, split) -> rows.
      whole: the table of a folder that has no splits, which is read as split "all"; "" for none.
      anywhere: whether pictures may lie outside of the folder: in a person's own table.
      notes: what a user of its numbers should know.
    """

    name: str
    title: str
    home: str
    columns: Mapping[str, Kind]
    label: str
    labels: Mapping[str, str]
    read: Callable[[Row], Facts]
    gated: bool = False
    optional: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = (*PARQUET, *FOLDER)
    image: str | None = "image"
    delimiter: str = ""
    own_policies: bool = False
    policy: str = ""
    split: str = "test"
    repeats: frozenset[str] = frozenset()
    load: Callable[[Path, str], list[Row]] | None = None
    whole: str = ""
    anywhere: bool = False
    notes: str = ""

    def how_to_get(self, directory: Path) -> str:
        """A sentence for people who have not got it."""
        if not self.home:
            return "is the path right?"
        gate = (", behind a form: accept its terms there, log in with `hf auth login`, and"
                if self.gated else ";")
        fetch = (f"run `hf download {self.home.split('/datasets/')[1]} --repo-type dataset "
                 f"--local-dir {directory}`" if "/datasets/" in self.home
                 else f"fetch it and lay it into {directory}")
        return f"{self.title} is published at {self.home}{gate} {fetch}"


def checked(row: Row, schema: Schema) -> Row:
    """The row with every column of the schema, of the right kind.

    Raises:
      DatasetError: a value of another kind; says which row and column.
    """
    values = dict.fromkeys(schema.optional) | dict(row.values)
    for column, kind in {**schema.columns, **schema.optional}.items():
        if column == schema.image or (column in schema.optional and values[column] is None):
            continue
        if column not in values:        # lines of JSON need not have the same keys
            raise DatasetError(f"{row.place} has no column {column!r}, which {schema.title} has")
        try:
            values[column] = _as(kind, values[column])
        except ValueError:
            wanted = {"text": "a text", "whole": "a whole number", "truth": "0, 1, true or false",
                      "list": "a list", "any": "a value"}[kind]
            raise DatasetError(f"{row.place}: column {column!r} is {values[column]!r}; it must be "
                               f"{wanted}") from None
    return dataclasses.replace(row, values=values)


def _as(kind: Kind, value: Any) -> Any:
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "whole" and not isinstance(value, bool):
        if isinstance(value, (int, str)):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    if kind == "truth" and str(value).strip().lower() in _YES_NO:
        return _YES_NO[str(value).strip().lower()]
    if kind == "list" and isinstance(value, list):
        return value
    if kind == "any" and value is not None:
        return value
    raise ValueError(value)


def label_of(row: Row, schema: Schema) -> str:
    """"safe" or "unsafe". Raises `DatasetError` for a value outside the published set."""
    value = row.values[schema.label]
    found = schema.labels.get(str(value).strip().lower())
    if found is None:
        raise DatasetError(f"{row.place}: {schema.label} is {value!r}; {schema.title} has "
                           f"{', '.join(map(repr, schema.labels))}")
    return found
