"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from guardjax.data.datasets.assistant_attacks import FIG_STEP, MM_SAFETY_BENCH
from guardjax.data.datasets.captions import CAPTIONED
from guardjax.data.datasets.llavaguard import LLAVA_GUARD
from guardjax.data.datasets.memes import HATEFUL_MEMES, MAMI, PRIDE_MM
from guardjax.data.datasets.own import OWN
from guardjax.data.datasets.policy_shift_bench import POLICY_SHIFT_BENCH
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.safe_edit_bench import SAFE_EDIT_BENCH
from guardjax.data.datasets.schema import Schema
from guardjax.data.datasets.unsafe_bench import UNSAFE_BENCH
from guardjax.data.datasets.vlguard import VL_GUARD
from guardjax.policies import Policy

SCHEMAS: Mapping[str, Schema] = MappingProxyType({schema.name: schema for schema in (
    SAFE_EDIT_BENCH, LLAVA_GUARD, UNSAFE_BENCH, POLICY_SHIFT_BENCH, VL_GUARD, HATEFUL_MEMES, MAMI,
    PRIDE_MM, MM_SAFETY_BENCH, FIG_STEP, OWN, CAPTIONED)})


def open_dataset(
    name: str, directory: str | Path, split: str = "", *, policy: Policy | None = None,
    missing: Literal["refuse", "drop"] = "refuse", errors: list[str] | None = None,
) -> DatasetReader:
    """The reader of a benchmark in a local folder; see `DatasetReader`.

    Raises:
      DatasetError: there is no such benchmark, or something is wrong with the folder.
    """
    if name not in SCHEMAS:
        raise DatasetError(f"there is no data set format {name!r}; there are {', '.join(SCHEMAS)}")
    return DatasetReader(SCHEMAS[name], directory, split, policy=policy, missing=missing,
                         errors=errors)
