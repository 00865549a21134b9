"""Tools whose answers are kept: nothing is asked twice, and every answer can be looked up.

    FOLDER/<key>.json       an assessor's answer, with what was asked
    FOLDER/<key>.png        an editor's picture

A key is a hash of the tool's identity, the call, its words and the pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from guardjax.atomic import write_bytes, write_text
from guardjax.json_file import read_json
from guardjax.pairs.tools import Assessment, Assessor, Editor, ToolError
from guardjax.policies import Policy


class KeptAssessor:
    """An assessor in front of a folder of its answers."""

    def __init__(self, assessor: Assessor, folder: str | pathlib.Path) -> None:
        self.identity = assessor.identity
        self.asked = 0          # calls that the folder had no answer to
        self._assessor, self._folder = assessor, pathlib.Path(folder)

    def assess(self, picture: np.ndarray, policy: Policy, attempt: int = 0) -> Assessment:
        """See `tools.Assessor`."""
        return Assessment(self._answer(
            picture, ("assess", policy.id, policy.hash, str(attempt)),
            lambda: self._assessor.assess(picture, policy, attempt).instruction))

    def caption(self, picture: np.ndarray) -> str:
        """See `tools.Assessor`."""
        return self._answer(picture, ("caption",), lambda: self._assessor.caption(picture))

    def restore(self, picture: np.ndarray, draft: str) -> str:
        """See `tools.Assessor`."""
        return self._answer(picture, ("restore", draft),
                            lambda: self._assessor.restore(picture, draft))

    def _answer(self, picture: np.ndarray, call: tuple[str, ...], ask: Callable[[], str]) -> str:
        path = self._folder / f"{call_key(self.identity, call, picture)}.json"
        if path.is_file():
            return read_json(path, ToolError)["answer"]
        answer = ask()
        self.asked += 1
        write_text(path, json.dumps({
            "tool": self.identity, "call": list(call), "picture": picture_hash(picture),
            "answer": answer}, ensure_ascii=False, indent=1) + "\n")
        return answer


class KeptEditor:
    """An editor in front of a folder of its pictures."""

    def __init__(self, editor: Editor, folder: str | pathlib.Path) -> None:
        self.identity = editor.identity
        self.asked = 0
        self._editor, self._folder = editor, pathlib.Path(folder)

    def edit(self, picture: np.ndarray, instruction: str, attempt: int = 0) -> np.ndarray:
        """See `tools.Editor`."""
        key = call_key(self.identity, ("edit", instruction, str(attempt)), picture)
        path = self._folder / f"{key}.png"
        if path.is_file():
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        edited = self._editor.edit(picture, instruction, attempt)
        self.asked += 1
        write_bytes(path, png_bytes(edited))
        return edited


def call_key(identity: str, call: tuple[str, ...], picture: np.ndarray) -> str:
    """32 hex digits of all that an answer depends on."""
    words = json.dumps([identity, *call, list(picture.shape), picture_hash(picture)])
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def picture_hash(picture: np.ndarray) -> str:
    """16 hex digits of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()[:16]


def png_bytes(picture: np.ndarray) -> bytes:
    """The picture as a PNG file, without metadata."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
