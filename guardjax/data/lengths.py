"""The lengths that prompts, pictures and answers are padded to, and those that a folder keeps.

Every length that occurs is one compiled program more, and every token of padding is computed for
nothing. The buckets of small prompts are those that the shipped models were trained and measured
with. Models with larger pictures have steps that are halves of a doubling, so that less than a
third of a usual prompt is padding.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardjax.data.images import MAX_ASPECT, PatchSpec
from guardjax.json_file import read_json, write_json

PROMPT_BUCKETS = (48, 64, 80, 96, 128, 192, 256, 512)
PATCH_BUCKETS = (64, 256, 1024, 4096)
ANSWER_BUCKETS = (12, 24, 48, 64, 96)
ANSWER_LIMIT = 32       # tokens that a guard may write, where its folder says nothing else
LENGTHS_FILE = "lengths.json"
_FINE = 2048            # up to here prompts of models with large pictures have steps by halves


class LengthsError(ValueError):
    """Buckets that are none, or a model folder's file of them that cannot be read."""


@dataclasses.dataclass(frozen=True)
class KeptLengths:
    """What a model needs beyond the usual, to be asked as it was trained.

    Attributes:
      prompt, answer: buckets larger than the usual ones, ascending.
      answer_limit: tokens that it may write.
    """

    prompt: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    answer_limit: int = ANSWER_LIMIT


def check_buckets(name: str, sizes: Sequence[int]) -> None:
    """Checks that lengths are positive and ascend; there may be none.

    Raises:
      LengthsError: with their name.
    """
    if any(size < 1 for size in sizes) or any(a >= b for a, b in zip(sizes, sizes[1:])):
        raise LengthsError(f"{name} must be positive lengths that ascend, each once, got "
                           f"{list(sizes)}")


def wider(buckets: Sequence[int], length: int) -> tuple[int, ...]:
    """`buckets` and the steps above them (128, 192, 256, 384, ...) up to one that holds `length`.

    Steps are powers of two and one and a half times those.
    """
    sizes = list(buckets)
    while sizes[-1] < length:
        power = 1 << (sizes[-1].bit_length() - 1)       # the largest that is not above
        sizes.append(next(size for size in (3 * power // 2, 2 * power) if size > sizes[-1]))
    return tuple(sizes)


def way_out(key: str, buckets: Sequence[int], length: int) -> str:
    """The value of a config key `lengths.{key}` with which `length` would fit, for an error."""
    return f"lengths.{key}={','.join(map(str, wider(buckets, length)))}"


def buckets_for(patches: PatchSpec, window_units: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt buckets, patch buckets) that hold every picture that `patches` can make.

    Those of small pictures are the module's. With larger ones prompts get the steps of `wider` up
    to `_FINE`, where most of them are, and doublings above it; patches grow by fours.
    """
    units = patches.max_pixels // patches.unit**2
    prompt, needed = PROMPT_BUCKETS, units + PROMPT_BUCKETS[-1] // 2
    if needed > PROMPT_BUCKETS[-1]:
        prompt = wider(PROMPT_BUCKETS[1:2], min(_FINE, _power_of_two(needed)))
        while prompt[-1] < needed:
            prompt = (*prompt, 2 * prompt[-1])
    # Of r x c units, windows of side w fill at most (r + w - 1) x (c + w - 1) places. A grid is
    # widest where its sides differ most: by half as much again as MAX_ASPECT, since rounding takes
    # a side of almost 1.5 units for one. Where small pictures grow, each side may be one more.
    longest = math.ceil(math.sqrt(1.5 * units * MAX_ASPECT))
    spare = window_units * (longest + units // longest + 1) + window_units**2
    patch = list(PATCH_BUCKETS)
    while patch[-1] < (units + spare) * patches.merge_size**2:
        patch.append(4 * patch[-1])
    return prompt, tuple(patch)


def _power_of_two(number: int) -> int:
    """The smallest that is not below."""
    return 1 << (number - 1).bit_length()


def save_lengths(kept: KeptLengths, path: pathlib.Path) -> None:
    """Writes the folder's file; none where everything is as usual."""
    usual = KeptLengths()
    found = {name: value for name, value in dataclasses.asdict(kept).items()
             if value != getattr(usual, name)}
    if found:
        write_json(path / LENGTHS_FILE, found)


def load_lengths(path: pathlib.Path) -> KeptLengths:
    """What a folder keeps; a folder without the file keeps nothing.

    Raises:
      LengthsError: the file is there and is none.
    """
    file = path / LENGTHS_FILE
    if not file.is_file():
        return KeptLengths()
    found = read_json(file, LengthsError)
    try:
        return _kept(found)
    except LengthsError as error:
        raise LengthsError(f"{file}: {error}") from error


def _kept(found: Mapping[str, Any]) -> KeptLengths:
    names = [field.name for field in dataclasses.fields(KeptLengths)]
    if unknown := sorted(found.keys() - set(names)):
        raise LengthsError(f"unknown {', '.join(unknown)}; it may have {', '.join(names)}")
    limit = found.get("answer_limit", ANSWER_LIMIT)
    if type(limit) is not int or limit < 1:
        raise LengthsError(f"answer_limit must be a positive number of tokens, got {limit!r}")
    buckets = {}
    for name in ("prompt", "answer"):
        sizes = found.get(name, [])
        if not isinstance(sizes, list) or not all(type(size) is int for size in sizes):
            raise LengthsError(f"{name} must be a list of whole numbers, got {sizes!r}")
        check_buckets(name, sizes)
        buckets[name] = tuple(sizes)
    return KeptLengths(**buckets, answer_limit=limit)
