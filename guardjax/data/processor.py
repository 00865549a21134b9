"""How a model directory says that pictures become patches: `preprocessor_config.json` and kin.

Releases wrote the same thing in several ways. All are read, with the precedence of transformers'
`Qwen2VLImageProcessorPil`: the section `image_processor` of `processor_config.json` before
`preprocessor_config.json`, and `min_pixels`/`max_pixels` before `size`. What would give other
patches than `guardjax.data.images` makes is refused, never ignored.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.data.images import MEAN, RESCALE, STD, PatchSpec
from guardjax.data.square import SquareSpec
from guardjax.json_file import read_json, write_json

PROCESSOR_FILE = "preprocessor_config.json"
NESTED_FILE = "processor_config.json"
_TYPES = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil",
          "Qwen2_5_VLImageProcessor")
_SQUARE_TYPES = {"CLIPImageProcessor": True, "SiglipImageProcessor": False}    # whether it crops
_HALF = (0.5, 0.5, 0.5)
_BICUBIC = 3
# What `to_patches` and `to_square_patches` do; a config that says otherwise wants something else.
_FIXED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
          "resample": _BICUBIC, "rescale_factor": RESCALE, "do_center_crop": False,
          "do_pad": False}


class ProcessorError(ValueError):
    """An image processor's config that `to_patches` would not obey."""


def load_processor(path: str | pathlib.Path) -> PatchSpec:
    """How pictures become patches for the model in directory `path`.

    Keys that are missing have the values of `PatchSpec`, which are transformers' own.

    Raises:
      FileNotFoundError: neither file is there.
      ProcessorError: a file that is not JSON, another processor, or a value that is not supported.
    """
    return _spec(*_read(pathlib.Path(path)))


def load_square_processor(path: str | pathlib.Path, patch_size: int) -> SquareSpec:
    """How pictures become squares for the LLaVA model in directory `path`.

    Args:
      path: the directory.
      patch_size: that of its tower (`ClipConfig.patch_size`), which these files do not say.

    Raises:
      FileNotFoundError: neither file is there.
      ProcessorError: a file that is not JSON, another processor, or a value that is not supported.
    """
    config, file = _read(pathlib.Path(path))
    kind = config.get("image_processor_type")
    name = str(kind).removesuffix("Fast").removesuffix("Pil")
    if name not in _SQUARE_TYPES:
        raise ProcessorError(f"{file}: image_processor_type is {kind!r}; only those of CLIP and "
                             f"SigLIP are supported ({', '.join(_SQUARE_TYPES)})")
    crops = _SQUARE_TYPES[name]
    _check_fixed(config, _FIXED | {"do_center_crop": crops}, file)
    wanted = {"size": {"shortest_edge"} if crops else {"height", "width"},
              **({"crop_size": {"height", "width"}} if crops else {})}
    sizes = set()
    for key, edges in wanted.items():
        found = config.get(key)
        if not isinstance(found, Mapping) or set(found) != edges:
            raise ProcessorError(f"{file}: {key} is {found!r}; it must be an object with "
                                 f"{' and '.join(sorted(edges))}, in pixels")
        sizes |= set(found.values())
    if len(sizes) != 1 or not all(type(size) is int for size in sizes):
        raise ProcessorError(f"{file}: size and crop_size are {sorted(map(str, sizes))}; they must "
                             "be one whole number")
    means, stds = ((MEAN, STD) if crops else (_HALF, _HALF))
    try:
        return SquareSpec(sizes.pop(), patch_size, crops, _triple(config, "image_mean", means),
                          _triple(config, "image_std", stds))
    except ValueError as error:
        raise ProcessorError(f"{file}: {error}") from error


def save_processor(spec: PatchSpec, path: str | pathlib.Path) -> None:
    """Writes `preprocessor_config.json`, readable by transformers 4 and 5, into a directory."""
    config = {
        # No `processor_class`: transformers takes that of the model's config.
        "image_processor_type": _TYPES[0],
        **{key: _FIXED[key] for key in ("do_resize", "do_rescale", "do_normalize",
                                        "do_convert_rgb", "resample", "rescale_factor")},
        "patch_size": spec.patch_size, "temporal_patch_size": spec.temporal_patch_size,
        "merge_size": spec.merge_size, "image_mean": list(spec.mean), "image_std": list(spec.std),
        # The first pair is read by transformers 4, `size` by 5.
        "min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels,
        "size": {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels},
    }
    write_json(pathlib.Path(path) / PROCESSOR_FILE, config)


def _read(path: pathlib.Path) -> tuple[Mapping[str, Any], pathlib.Path]:
    """(what the processor's config says, the file that says it)"""
    if (path / NESTED_FILE).is_file():
        nested = read_json(path / NESTED_FILE, ProcessorError).get("image_processor")
        if isinstance(nested, Mapping):
            return nested, path / NESTED_FILE
    if not (path / PROCESSOR_FILE).is_file():
        raise FileNotFoundError(f"{path} has no {PROCESSOR_FILE}, which says how pictures become "
                                "patches; copy it from the model's release")
    return read_json(path / PROCESSOR_FILE, ProcessorError), path / PROCESSOR_FILE


def _check_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any], file: pathlib.Path) -> None:
    for key, wanted in fixed.items():
        found = config.get(key)
        if found is not None and found != wanted:
            raise ProcessorError(f"{file}: {key} is {found!r}; only {wanted!r} is supported")


def _spec(config: Mapping[str, Any], file: pathlib.Path) -> PatchSpec:
    kind = config.get("image_processor_type", _TYPES[0])
    if kind not in _TYPES:
        raise ProcessorError(f"{file}: image_processor_type is {kind!r}; only that of Qwen2-VL and "
                             f"Qwen2.5-VL is supported ({_TYPES[0]})")
    _check_fixed(config, _FIXED, file)
    size = config.get("size") or {}
    if not isinstance(size, Mapping):
        raise ProcessorError(f"{file}: size is {size!r}; it must be an object with shortest_edge "
                             "and longest_edge, in pixels of the whole picture")
    values = {name: config[name] for name in ("patch_size", "temporal_patch_size", "merge_size")
              if config.get(name) is not None}
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        found = next((value for value in (config.get(name), size.get(name), size.get(edge))
                      if value is not None), None)
        if found is not None:
            values[name] = found
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise ProcessorError(f"{file}: {name} is {value!r}; it must be a whole number")
    try:
        return PatchSpec(mean=_triple(config, "image_mean", MEAN),
                         std=_triple(config, "image_std", STD), **values)
    except ValueError as error:
        raise ProcessorError(f"{file}: {error}") from error


def _triple(config: Mapping[str, Any], key: str, default: tuple[float, float, float],
            ) -> tuple[float, float, float]:
    found = config.get(key)
    if found is None:
        return default
    if (not isinstance(found, list) or len(found) != 3
            or not all(isinstance(value, (int, float)) and math.isfinite(value)
                       for value in found)):
        raise ValueError(f"{key} is {found!r}; it must be three numbers, of red, green and blue")
    red, green, blue = found
    return float(red), float(green), float(blue)
