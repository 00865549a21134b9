"""A benchmark from a local folder, checked before its first example: a grain source of records."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from guardjax.data.datasets.record import NO_POLICY, SAFE, DatasetError, Record, ShownPolicy
from guardjax.data.datasets.schema import ALL, Facts, Schema, checked, label_of
from guardjax.data.datasets.tables import Row, check_columns, read_rows
from guardjax.data.intake import IntakeError, load_picture, read_file
from guardjax.policies import Policy, load_policy

_POLICIES = Path(__file__).with_name("policies")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where the picture of a record is: embedded in its table, or a file."""

    row: Row
    file: Path | None


class DatasetReader:
    """The rows of one split by index; reading one opens its picture.

    Attributes:
      schema, directory, split: what is read.
      records: all rows, without their pictures.
      dropped: places of rows that were left out, because their picture is not there or because
        they are published twice.
    """

    def __init__(
        self, schema: Schema, directory: str | Path, split: str = "", *,
        policy: Policy | None = None, missing: Literal["refuse", "drop"] = "refuse",
        errors: list[str] | None = None,
    ) -> None:
        """Checks columns, values, labels, ids and policies, and that every picture file is there.

        Args:
          schema: the benchmark.
          directory: its folder, as the hub lays it out.
          split: "" for the benchmark's usual one.
          policy: what to show in the place of the benchmark's fixed policy.
          missing: what happens to rows whose picture is not there: some benchmarks publish
            addresses on the web, which die.
          errors: where given, what is wrong with single rows is added to it, and they are left
            out; without it the first such row raises.

        Raises:
          DatasetError: whatever is wrong; says which file and row, and how to mend it.
        """
        self.schema, self.directory = schema, Path(directory)
        self.split = split or schema.split
        self._given, self._missing = policy, missing
        self.dropped: list[str] = []
        rows = self._rows()
        if not rows:
            raise DatasetError(f"split {self.split!r} in {self.directory} has no row")
        check_columns(rows, self._wanted(rows[0]), schema.title)
        fixed = self._fixed_policy()
        self._sources: list[_Source] = []
        records: dict[str, Record] = {}
        for row in rows:
            try:
                self._take(row, fixed, records)
            except DatasetError as error:
                if errors is None:
                    raise
                errors.append(str(error))
        if not records and not errors:
            raise DatasetError(f"no row of split {self.split!r} in {self.directory} has its "
                               f"picture; {schema.how_to_get(self.directory)}")
        self.records = tuple(records.values())

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """A record with its picture. Raises `DatasetError`, naming row and file, if it is bad."""
        index = range(len(self))[operator.index(index)]     # IndexError beyond the end
        record, data = self.records[index], self.picture_bytes(index)
        try:
            picture = load_picture(data)
        except IntakeError as error:
            raise self._bad_picture(index, error) from error
        image_id = record.image_id or picture.sha256[:16]
        return dataclasses.replace(record, image=picture.pixels, image_id=image_id)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple:
        # Worker processes open the files for themselves.
        return _reopen, (self.schema.name, self.directory, self.split, self._given, self._missing)

    def __repr__(self) -> str:
        return f"DatasetReader({self.schema.name!r}, {str(self.directory)!r}, {self.split!r})"

    def picture_bytes(self, index: int) -> bytes:
        """The picture's file as it is stored. Raises `DatasetError`, naming row and file."""
        source = self._sources[index]
        if source.file is not None:
            try:
                return read_file(source.file)
            except IntakeError as error:
                raise self._bad_picture(index, error) from error
        found = source.row.picture()
        if isinstance(found, str):      # a path in the place of bytes
            file = self._inside(source.row.file.parent / found)
            if file is None:
                raise DatasetError(f"{source.row.place}: its picture {found!r} lies outside of "
                                   f"{self.directory}; fetch the data set anew")
            try:
                return read_file(file)
            except IntakeError as error:
                raise DatasetError(f"{source.row.place}: its picture {file}: {error}") from error
        if not found:
            raise DatasetError(f"{source.row.place}: column {self.schema.image!r} is empty; fetch "
                               "the file again")
        return found

    @property
    def digest(self) -> str:
        """16 hex digits over ids, labels and policies, or captions (not pictures): what a run
        belongs to."""
        found = hashlib.sha256()
        for record in self.records:
            words = (*record.rule_ids, record.caption) if record.caption else record.rule_ids
            found.update("\0".join((record.row_id, record.label, record.policy.text, *words)
                                   ).encode() + b"\n")
        return found.hexdigest()[:16]

    @functools.cached_property
    def digest_with_pictures(self) -> str:
        """16 hex digits over what `digest` has and over every picture's file: what answers to the
        rows belong to. Reads all pictures, without opening them.

        Raises:
          DatasetError: one cannot be read; names row and file.
        """
        found = hashlib.sha256(self.digest.encode())
        seen: dict[str, bytes] = {}     # a file that several rows name is read once
        for index, record in enumerate(self.records):
            source = self._sources[index]
            name = str(source.file) if source.file is not None else record.place
            if name not in seen:
                seen[name] = hashlib.sha256(self.picture_bytes(index)).digest()
            found.update(seen[name])
        return found.hexdigest()[:16]

    def _rows(self) -> list[Row]:
        schema = self.schema
        if not self.directory.is_dir():
            raise DatasetError(f"there is no folder {self.directory}: "
                               f"{schema.how_to_get(self.directory)}")
        if schema.load is not None:
            return schema.load(self.directory, self.split)
        patterns = (schema.whole,) if schema.whole and self.split == ALL else schema.files
        for pattern in patterns:
            files = sorted(self.directory.glob(pattern.format(split=self.split)))
            if files:
                return [row for file in files
                        for row in read_rows(file, schema.image, schema.delimiter)]
        if schema.whole and (self.directory / schema.whole).is_file():
            raise DatasetError(f"{self.directory} has no splits; ask for {ALL!r} in the place of "
                               f"{self.split!r}")
        raise DatasetError(
            f"{self.directory} has no split {self.split!r} of {schema.title} (looked for "
            f"{', '.join(p.format(split=self.split) for p in patterns)}). "
            f"{schema.how_to_get(self.directory)}")

    def _wanted(self, row: Row) -> list[str]:
        """The columns that must be there; an image folder names files in the place of pictures."""
        return [name for name in self.schema.columns
                if name != self.schema.image or "file_name" not in row.values]

    def _fixed_policy(self) -> ShownPolicy | None:
        if not self.schema.label:
            if self._given is not None:
                raise DatasetError(f"{self.schema.title} are under no policy; leave the policy "
                                   f"{self._given.id!r} out")
            return NO_POLICY
        if self.schema.own_policies:
            if self._given is not None:
                raise DatasetError(f"the rows of {self.schema.title} have policies of their own; "
                                   f"leave the policy {self._given.id!r} out")
            return None
        if self._given is not None:
            return ShownPolicy.of(self._given)
        if not self.schema.policy:
            return None
        return ShownPolicy.of(load_policy(_POLICIES / f"{self.schema.policy}.yaml"))

    def _take(self, row: Row, fixed: ShownPolicy | None, records: dict[str, Record]) -> None:
        """Adds a row to `records`, by id, unless it is to be left out."""
        row = checked(row, self.schema)
        record, facts = self._record(row, fixed)
        if (earlier := records.get(record.row_id)) is not None:
            if record.row_id not in self.schema.repeats:
                raise DatasetError(f"{row.place}: id {record.row_id!r} is also that of "
                                   f"{earlier.place}; ids must differ")
            self.dropped.append(f"{row.place}: {record.row_id!r} is published twice")
            return
        file = self._find(row, facts)
        if file is None and row.picture is None:
            self._lacks_picture(row, facts)
            return
        records[record.row_id] = record
        self._sources.append(_Source(row, file))

    def _record(self, row: Row, fixed: ShownPolicy | None) -> tuple[Record, Facts]:
        facts = self.schema.read(row)
        label = label_of(row, self.schema) if self.schema.label else ""
        policy = facts.policy or fixed
        if label and (policy is None or not policy.text.strip()):
            raise DatasetError(f"{row.place}: the policy is empty; a picture is judged under one")
        rules: tuple[str, ...] = ()
        if label and label != SAFE:
            rules = tuple(rule for rule in facts.rules if rule in policy.rules)
            if not rules and len(policy.rules) == 1:
                rules = policy.rules
        return Record(
            dataset=self.schema.name, split=self.split, row_id=facts.row_id, place=row.place,
            policy=policy, label=label, rule_ids=rules, category=facts.category,
            rationale=facts.rationale, image_id=facts.image_id, pair_id=facts.pair_id,
            variant=facts.variant, text=facts.text, caption=facts.caption), facts

    def _find(self, row: Row, facts: Facts) -> Path | None:
        names = facts.files
        if row.values.get("file_name") and row.picture is None:
            names = (str(row.values["file_name"]), *names)
        places = (self._inside(row.file.parent / name) for name in names)
        return next((file for file in places if file is not None and file.is_file()), None)

    def _inside(self, file: Path) -> Path | None:
        """The path, if it is one of the data set's: a published table may not reach elsewhere.

        Links are followed: the hub's cache is made of them.
        """
        if self.schema.anywhere:
            return file
        folder, path = (os.path.abspath(each) for each in (self.directory, file))
        return file if os.path.commonpath((folder, path)) == folder else None

    def _lacks_picture(self, row: Row, facts: Facts) -> None:
        if self._missing == "drop":
            self.dropped.append(f"{row.place}: its picture is not there")
            return
        raise DatasetError(
            f"{row.place}: its picture is not there (looked for "
            f"{', '.join(facts.files) or 'file_name'} below {row.file.parent}); fetch the "
            "pictures, or leave such rows out: --missing drop")

    def _bad_picture(self, index: int, error: IntakeError) -> DatasetError:
        source = self._sources[index]
        file = f" {source.file}" if source.file is not None else ""
        return DatasetError(f"{source.row.place}: its picture{file}: {error}")


def _reopen(name: str, directory: Path, split: str, policy: Policy | None,
            missing: Literal["refuse", "drop"]) -> DatasetReader:
    from guardjax.data.datasets.registry import SCHEMAS

    return DatasetReader(SCHEMAS[name], directory, split, policy=policy, missing=missing)
