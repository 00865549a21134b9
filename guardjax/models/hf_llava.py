"""`config.json` of LLaVA (1.5 and interleave): its names of our fields, both ways.

A file names only what differs from the defaults of transformers' classes, so these stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardjax.models.family import Section, Sections, end_tokens, is_tied, parts, require

# By `model_type` of vision_config: our style, and how features are chosen. A class token is left
# out of them.
_STYLES = {"clip_vision_model": ("clip", "default"), "siglip_vision_model": ("siglip", "full")}
_TOWERS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3},
    "siglip_vision_model": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
                            "num_channels": 3},
}
# By `model_type` of text_config.
_DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
              "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-6,
              "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "qwen2": {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
              "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
              "rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
}
_TOWER_KEYS = {"depth": "num_hidden_layers", "num_heads": "num_attention_heads",
               "in_channels": "num_channels", "eps": "layer_norm_eps"}


def read_llava(raw: Mapping[str, Any]) -> Sections:
    """One picture size, one layer of features, a CLIP or SigLIP tower, a Llama or Qwen2 decoder."""
    vision, text = parts(raw)
    text = _with_defaults("text_config", text, _DECODERS, "llama")
    require(raw, "projector_hidden_act", "gelu")
    require(raw, "multimodal_projector_bias", True)
    vision = _with_defaults("vision_config", vision, _TOWERS, "clip_vision_model")
    kind = vision["model_type"]
    style, strategy = _STYLES[kind]
    if style == "siglip" and vision.get("vision_use_head", True):
        raise ValueError("vision_use_head is not implemented, only false")
    if (found := raw.get("vision_feature_select_strategy", "default")) != strategy:
        raise ValueError(f"vision_feature_select_strategy {found!r} is not implemented for a "
                         f"{kind}, only {strategy!r}")
    depth, layer = _number(vision, "num_hidden_layers"), raw.get("vision_feature_layer", -2)
    if type(layer) is not int or not -depth <= layer <= depth or layer == 0:
        raise ValueError(f"vision_feature_layer {layer!r} is not implemented, only one layer "
                         f"behind one of the {depth} blocks")
    fields = {"style": style, "out_hidden_size": text["hidden_size"],
              "feature_blocks": layer if layer > 0 else depth + 1 + layer}
    ids = {"image_token_id": raw.get("image_token_index", raw.get("image_token_id", 32000)),
           "video_token_id": None, "vision_start_token_id": None, "vision_end_token_id": None}
    return Sections(Section("vision_config", vision, fields, _TOWER_KEYS), _text(text),
                    {"tie_word_embeddings": is_tied(raw, text), **ids})


def write_llava(vision: dict[str, Any], text: dict[str, Any],
                own: Mapping[str, Any]) -> dict[str, Any]:
    """Readable by transformers 4 and 5."""
    style = vision.pop("style")
    kind, strategy = next((kind, strategy) for kind, (name, strategy) in _STYLES.items()
                          if name == style)
    layer = vision.pop("feature_blocks") - vision["depth"] - 1
    del vision["out_hidden_size"]
    vision = {_TOWER_KEYS.get(name, name): value for name, value in vision.items()}
    vision |= {"model_type": kind, **({"vision_use_head": False} if style == "siglip" else {})}
    del text["mrope_section"]
    has_bias = text.pop("attention_bias")
    if isinstance(text["eos_token_id"], tuple):
        text["eos_token_id"] = list(text["eos_token_id"])
    text |= {"model_type": "qwen2" if has_bias else "llama", "hidden_act": "silu",
             "tie_word_embeddings": own["tie_word_embeddings"],
             "rope_parameters": {"rope_type": "default", "rope_theta": text["rope_theta"]}}
    return {
        "vision_config": vision, "text_config": text, "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True, "vision_feature_layer": layer,
        "vision_feature_select_strategy": strategy,
        "image_seq_length": (vision["image_size"] // vision["patch_size"])**2,
        "image_token_index": own["image_token_id"],
        "tie_word_embeddings": own["tie_word_embeddings"],
    }


def _with_defaults(where: str, raw: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]],
                   usual: str) -> dict[str, Any]:
    kind = raw.get("model_type", usual)
    if kind not in known:
        raise ValueError(f"model_type {kind!r} of {where} is not implemented, only "
                         f"{' and '.join(map(repr, known))}")
    # Null is a missing value, but of a token that there is none.
    said = {key: value for key, value in raw.items()
            if value is not None or key.endswith("_token_id")}
    return {"model_type": kind, **known[kind], **said}


def _number(raw: Mapping[str, Any], key: str) -> int:
    if type(raw.get(key)) is not int or raw[key] < 1:
        raise ValueError(f"{key} is {raw.get(key)!r}; it must be a positive whole number")
    return raw[key]


def _text(raw: dict[str, Any]) -> Section:
    """Plain rotary positions are M-RoPE's whose frequencies all turn with time."""
    require(raw, "hidden_act", "silu")
    require(raw, "attention_bias", False)       # Qwen2 has its own, which no file names
    require(raw, "mlp_bias", False)
    require(raw, "use_sliding_window", False)
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope type {kind!r} is not implemented")
    head = _number(raw, "hidden_size") // _number(raw, "num_attention_heads")
    require(raw, "head_dim", head)
    fields = {"mrope_section": (head // 2, 0, 0),
              "rope_theta": float(rope.get("rope_theta", raw.get("rope_theta", 10000.0))),
              "eos_token_id": end_tokens(raw), "attention_bias": raw["model_type"] == "qwen2"}
    return Section("text_config", {"num_key_value_heads": raw["num_attention_heads"], **raw},
                   fields)
