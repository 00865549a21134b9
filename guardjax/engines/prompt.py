"""A prompt as an engine takes it: token ids, or text with a picture where it shows one.

Engines take a picture with text only, and tokenise that text with special tokens recognised. That
text is made from the ids and checked to give them back, so that a policy that spells a special
token is refused here, not read as the template there.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools

import numpy as np
from PIL import Image

from guardjax.data.images import PatchSpec, resize, smart_size
from guardjax.data.tokenizer import IMAGE_PAD, Tokenizer
from guardjax.rl.engine import EngineError


@dataclasses.dataclass(frozen=True)
class EnginePrompt:
    """One prompt; `text` and `png` are "" without a picture.

    Attributes:
      name: what errors call it.
      ids: what the engine must see, with a placeholder for each image token.
      text: the same with one placeholder for the picture.
      png: base64, the pixels after our resize.
    """

    name: str
    ids: tuple[int, ...]
    text: str = ""
    png: str = ""

    @property
    def data_url(self) -> str:
        """The picture as a URL."""
        return f"data:image/png;base64,{self.png}"


def engine_prompt(ids: np.ndarray, image: np.ndarray | None, name: str, tokenizer: Tokenizer,
                  patches: PatchSpec) -> EnginePrompt:
    """The prompt of `ids` [P] int32, without padding, that shows `image` [H, W, 3] uint8 or none.

    Raises:
      EngineError: text that does not give back the ids, or a picture that an engine would resize
        once more.
    """
    found = tuple(int(token) for token in ids)
    if image is None:
        return EnginePrompt(name, found)
    text, png = _as_text(found, name, tokenizer), _as_png(image, name, patches)
    return EnginePrompt(name, found, text, png)


def _as_text(ids: tuple[int, ...], name: str, tokenizer: Tokenizer) -> str:
    pad = tokenizer.image_pad_id
    kept = [token for token, run in itertools.groupby(ids)
            for _ in range(1 if token == pad else len(list(run)))]
    text = tokenizer.inner.decode(kept, skip_special_tokens=False,
                                  clean_up_tokenization_spaces=False)
    back = tokenizer.trusted(text.replace(IMAGE_PAD, IMAGE_PAD * ids.count(pad)))
    if back != list(ids):
        raise EngineError(
            f"example {name}: with a picture an engine takes the prompt as text, and this text "
            f"has other tokens than the prompt (from token {_first_difference(back, ids)} on): "
            "its policy spells a special token such as <|im_end|>, or begins or ends with spaces. "
            "Change the policy, or sample with rl.engine='local'")
    return text


def _first_difference(one: list[int], other: tuple[int, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b),
                min(len(one), len(other)))


def _as_png(image: np.ndarray, name: str, patches: PatchSpec) -> str:
    pixels = resize(image, patches)
    height, width = pixels.shape[:2]
    again = smart_size(height, width, patches)
    if again != (height, width):
        raise EngineError(
            f"example {name}: its picture becomes {width}x{height} pixels, which an engine would "
            f"resize once more, to {again[1]}x{again[0]} (min_pixels={patches.min_pixels}, "
            f"max_pixels={patches.max_pixels}); widen these limits, or sample with "
            "rl.engine='local'")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
