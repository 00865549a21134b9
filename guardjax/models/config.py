"""The shape of a Qwen2.5-VL model: frozen dataclasses whose fields are named as in Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from guardjax.models.attention.backends import check_name

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `window_size` is in pixels; attention is full only in the listed blocks."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    in_channels: int = 3
    tokens_per_second: int = 4
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 4:
            raise ValueError(
                f"vision hidden_size {self.hidden_size} over {self.num_heads} heads must give a "
                "head size that is a multiple of 4 (2-D rotary)")
        if self.window_units < 1:
            raise ValueError(
                f"window_size {self.window_size} holds no merged unit of "
                f"{self.patch_size * self.spatial_merge_size} pixels")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Length of one flattened patch: channels, frames, rows, columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_units(self) -> int:
        """Merged units along one side of a window."""
        return self.window_size // self.spatial_merge_size // self.patch_size

    @property
    def window_patches(self) -> int:
        """Patches in one full window."""
        return (self.window_units * self.spatial_merge_size) ** 2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder. `mrope_section` shares out the head's frequencies to time, row and column."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 128000
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into "
                             f"{self.num_attention_heads} heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"{self.num_attention_heads} query heads do not divide over "
                             f"{self.num_key_value_heads} key/value heads")
        if len(self.mrope_section) != 3 or 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(f"mrope_section {self.mrope_section} must be three numbers whose sum "
                             f"is half the head size {self.head_dim}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model. Hashable, so that it can be a static argument of `jax.jit`.

    `dtype` is the compute type; the parameters keep the type they have. `attention` is one of
    `attention.BACKENDS`. Both belong to a process and are not part of `config.json`.
    """

    vision: VisionConfig
    text: TextConfig
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    tie_word_embeddings: bool = False
    dtype: str = "float32"
    attention: str = "xla"

    def __post_init__(self) -> None:
        check_name(self.attention)
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise ValueError(f"vision out_hidden_size {self.vision.out_hidden_size} differs from "
                             f"text hidden_size {self.text.hidden_size}")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], *, dtype: str = "float32") -> ModelConfig:
        """Reads a `config.json`, old (flat, `rope_scaling`) or new (nested, `rope_parameters`).

        Raises:
            ValueError: another architecture, a missing key, or a feature that is not implemented.
        """
        model_type = raw.get("model_type")
        if model_type != MODEL_TYPE:
            raise ValueError(f"unknown architecture: model_type is {model_type!r}, only "
                             f"{MODEL_TYPE!r} can be read")
        if not isinstance(raw.get("vision_config"), Mapping):
            raise ValueError("config has no vision_config")
        text = raw.get("text_config") or raw
        if not isinstance(text, Mapping):
            raise ValueError(f"text_config is {text!r}; it must be an object")
        # Before version 5, transformers kept the tie inside text_config.
        tied = raw.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False)
        ids = {name: raw[name] for name in _TOKEN_IDS if raw.get(name) is not None}
        return cls(vision=_vision_from_hf(raw["vision_config"], text), text=_text_from_hf(text),
                   tie_word_embeddings=bool(tied), dtype=dtype, **ids)

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` of this model, readable by transformers 4 and 5."""
        text = dataclasses.asdict(self.text)
        section = list(text.pop("mrope_section"))
        if isinstance(text["eos_token_id"], tuple):
            text["eos_token_id"] = list(text["eos_token_id"])
        text |= {
            "model_type": f"{MODEL_TYPE}_text", "hidden_act": "silu", "use_sliding_window": False,
            "tie_word_embeddings": self.tie_word_embeddings,
            "rope_scaling": {"type": "mrope", "mrope_section": section},
            "rope_parameters": {"rope_type": "default", "rope_theta": self.text.rope_theta,
                                "mrope_section": section},
        }
        vision = dataclasses.asdict(self.vision)
        vision |= {
            "model_type": f"{MODEL_TYPE}_vision", "hidden_act": "silu",
            "fullatt_block_indexes": list(self.vision.fullatt_block_indexes),
            "rope_parameters": {"rope_type": "axial", "rope_theta": vision.pop("rope_theta")},
        }
        return {
            "architectures": [ARCHITECTURE], "model_type": MODEL_TYPE,
            "text_config": text, "vision_config": vision,
            "tie_word_embeddings": self.tie_word_embeddings,
            **{name: getattr(self, name) for name in _TOKEN_IDS},
        }


_TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def _text_from_hf(raw: Mapping[str, Any]) -> TextConfig:
    _require_silu(raw)
    if raw.get("use_sliding_window"):
        raise ValueError("use_sliding_window is not implemented")
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise ValueError(f"rope type {kind!r} is not implemented")
    if "mrope_section" not in rope:
        raise ValueError("config has no mrope_section in rope_scaling or rope_parameters")
    eos = raw.get("eos_token_id")
    fields = {"mrope_section": tuple(rope["mrope_section"]),
              "rope_theta": float(rope.get("rope_theta", raw.get("rope_theta", 1000000.0))),
              "eos_token_id": tuple(eos) if isinstance(eos, (list, tuple)) else eos}
    raw = {"num_key_value_heads": raw.get("num_attention_heads"), **raw}
    return _fill(TextConfig, raw, "text_config", fields)


def _vision_from_hf(raw: Mapping[str, Any], text: Mapping[str, Any]) -> VisionConfig:
    _require_silu(raw)
    rope = raw.get("rope_parameters") or {}
    fields = {"fullatt_block_indexes": tuple(raw.get("fullatt_block_indexes", (7, 15, 23, 31))),
              "in_channels": raw.get("in_channels", raw.get("in_chans", 3)),
              "out_hidden_size": raw.get("out_hidden_size", text.get("hidden_size")),
              "rope_theta": float(rope.get("rope_theta", 10000.0))}
    return _fill(VisionConfig, raw, "vision_config", fields)


def _fill(cls: type, raw: Mapping[str, Any], where: str, fields: dict[str, Any]) -> Any:
    """Builds `cls` from `fields`, then `raw`, then defaults; names what is missing."""
    for field in dataclasses.fields(cls):
        if field.name in fields:
            continue
        if raw.get(field.name) is not None:
            fields[field.name] = raw[field.name]
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"config has no {field.name} in {where}")
        value = fields.get(field.name, field.default)
        if field.type == "int" and not (type(value) is int and 0 < value < 2**31):
            raise ValueError(f"{field.name} in {where} is {value!r}; it must be a whole number "
                             "between 1 and 2,147,483,647")
    return cls(**fields)


def _require_silu(raw: Mapping[str, Any]) -> None:
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {raw['hidden_act']!r} is not implemented, only 'silu'")
