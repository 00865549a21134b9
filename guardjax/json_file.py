"""JSON objects on disk: read with an error that names the file, written in one step."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.atomic import write_text


def read_json(file: pathlib.Path, problem: type[ValueError]) -> dict[str, Any]:
    """A JSON object. Raises `problem`, naming the file, where it holds something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise problem(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise problem(f"{file} is not a JSON object")
    return value


def write_json(file: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes an object as people read it, keys in order, in one step."""
    write_text(file, json.dumps(value, indent=2, sort_keys=True) + "\n")
