"""What the two engines' protocols have in common, as `remote.py` needs it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Protocol

from guardjax.engines.answer import Answer
from guardjax.engines.http import Server
from guardjax.engines.prompt import EnginePrompt
from guardjax.rl.engine import Decoding

# As far as both engines let a logit be moved. exp(-100) is 0 in float32 beside any likely token.
MOST_BIAS = 100.0


class Wire(Protocol):
    """One engine's paths, names and replies.

    Every method raises `ServerLost` where nobody answers, and `EngineError` where the answer is
    a refusal or makes no sense.
    """

    server: Server

    def ping(self) -> None:
        """Asks whether the engine is ready."""
        ...

    def model_folders(self) -> tuple[str, str]:
        """What the engine was started with: the model's folder and the tokenizer's."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids that the engine's own tokenizer gives; special tokens are recognised."""
        ...

    def load(self, folder: pathlib.Path, version: str) -> None:
        """Has the weights in `folder` read, old keys and features forgotten, and a name set."""
        ...

    def version(self) -> str:
        """The name of the weights that the engine has now."""
        ...

    def complete(self, prompt: EnginePrompt, seed: int, decoding: Decoding,
                 bias: Mapping[int, float]) -> Answer:
        """One answer; `bias` is added to the logits of its ids."""
        ...
