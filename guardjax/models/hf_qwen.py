"""`config.json` of Qwen2.5-VL and Qwen2-VL: their names of our fields, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from guardjax.models.family import Section, Sections, end_tokens, is_tied, parts, require

QWEN2_5_FIXED = MappingProxyType({"norm": "rms", "mlp": "swiglu"})
# No windows: every block attends to whole frames. Time counts frames, not seconds.
QWEN2_FIXED = MappingProxyType({"norm": "layer", "mlp": "quick_gelu", "window_size": None,
                                "fullatt_block_indexes": (), "tokens_per_second": None})

_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def read_qwen2_5_vl(raw: Mapping[str, Any]) -> Sections:
    """Old (flat, `rope_scaling`) or new (nested, `rope_parameters`)."""
    vision, text = parts(raw)
    require(vision, "hidden_act", "silu")
    fields = {**_tower(vision),
              "fullatt_block_indexes": tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
              "out_hidden_size": vision.get("out_hidden_size", text.get("hidden_size"))}
    return Sections(Section("vision_config", vision, fields), _text(text), _own(raw, text))


def write_qwen2_5_vl(vision: dict[str, Any], text: dict[str, Any],
                     own: Mapping[str, Any]) -> dict[str, Any]:
    """Readable by transformers 4 and 5."""
    for name in QWEN2_5_FIXED:
        del vision[name]
    vision |= {"hidden_act": "silu", "fullatt_block_indexes": list(vision["fullatt_block_indexes"])}
    return _whole("qwen2_5_vl", vision, text, own)


def read_qwen2_vl(raw: Mapping[str, Any]) -> Sections:
    """As `read_qwen2_5_vl`; the tower's width is `embed_dim`, and `hidden_size` what leaves it."""
    vision, text = parts(raw)
    require(vision, "hidden_act", "quick_gelu")
    fields = {**_tower(vision), **QWEN2_FIXED}
    width, ratio = vision.get("embed_dim"), vision.get("mlp_ratio", 4)
    if type(width) is int and type(ratio) is int:
        fields["intermediate_size"] = width * ratio
    keys = {"hidden_size": "embed_dim", "out_hidden_size": "hidden_size",
            "intermediate_size": "mlp_ratio"}
    return Sections(Section("vision_config", vision, fields, keys), _text(text),
                    _own(raw, text))


def write_qwen2_vl(vision: dict[str, Any], text: dict[str, Any],
                   own: Mapping[str, Any]) -> dict[str, Any]:
    """As `write_qwen2_5_vl`.

    Raises:
        ValueError: a width that `mlp_ratio` cannot say.
    """
    for name in QWEN2_FIXED:
        del vision[name]
    width, inner = vision.pop("hidden_size"), vision.pop("intermediate_size")
    if inner % width:
        raise ValueError(f"vision intermediate_size {inner} must be a multiple of hidden_size "
                         f"{width}: a Qwen2-VL config stores their ratio as a whole number")
    vision |= {"embed_dim": width, "mlp_ratio": inner // width, "hidden_act": "quick_gelu",
               "hidden_size": vision.pop("out_hidden_size")}
    return _whole("qwen2_vl", vision, text, own)


def _tower(raw: Mapping[str, Any]) -> dict[str, Any]:
    rope = raw.get("rope_parameters") or {}
    return {"in_channels": raw.get("in_channels", raw.get("in_chans", 3)),
            "rope_theta": float(rope.get("rope_theta", 10000.0))}


def _text(raw: Mapping[str, Any]) -> Section:
    require(raw, "hidden_act", "silu")
    if raw.get("use_sliding_window"):
        raise ValueError("use_sliding_window is not implemented")
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise ValueError(f"rope type {kind!r} is not implemented")
    if "mrope_section" not in rope:
        raise ValueError("config has no mrope_section in rope_scaling or rope_parameters")
    fields = {"mrope_section": tuple(rope["mrope_section"]),
              "rope_theta": float(rope.get("rope_theta", raw.get("rope_theta", 1000000.0))),
              "eos_token_id": end_tokens(raw), "attention_bias": True}
    raw = {"num_key_value_heads": raw.get("num_attention_heads"), **raw}
    return Section("text_config", raw, fields)


def _own(raw: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    ids = {name: raw[name] for name in _IDS if raw.get(name) is not None}
    return {"tie_word_embeddings": is_tied(raw, text), **ids}


def _whole(family: str, vision: dict[str, Any], text: dict[str, Any],
           own: Mapping[str, Any]) -> dict[str, Any]:
    """All sections; `vision` lacks only what both families have."""
    del text["attention_bias"]
    section = list(text.pop("mrope_section"))
    if isinstance(text["eos_token_id"], tuple):
        text["eos_token_id"] = list(text["eos_token_id"])
    tied = own["tie_word_embeddings"]
    text |= {
        "model_type": f"{family}_text", "hidden_act": "silu", "use_sliding_window": False,
        "tie_word_embeddings": tied,
        "rope_scaling": {"type": "mrope", "mrope_section": section},
        "rope_parameters": {"rope_type": "default", "rope_theta": text["rope_theta"],
                            "mrope_section": section},
    }
    vision |= {
        "model_type": f"{family}_vision",
        "rope_parameters": {"rope_type": "axial", "rope_theta": vision.pop("rope_theta")},
    }
    return {
        "text_config": text, "vision_config": vision, "tie_word_embeddings": tied,
        **{name: own[name] for name in _IDS},
    }
