"""The other side: transformers, with its own cache. Needs the extra `parity`."""

from __future__ import annotations

import copy
from typing import Any

import flax.traverse_util
import numpy as np
import torch
import transformers
from forward_parts.cases import Model, Row
from transformers.initialization import no_init_weights

from guardjax.models.hf_names import hub_name, tensor_table, to_hf_layout

ATTENTION = ("eager", "sdpa")
CACHES = ("dynamic", "static")

torch.set_num_threads(1)


class Peer:
    """The reference model on the same weights."""

    def __init__(self, model: Model) -> None:
        self.model = model
        # Weights are replaced below: drawing them first would take longer than all that is timed.
        with no_init_weights():
            net = transformers.Qwen2_5_VLForConditionalGeneration(
                transformers.Qwen2_5_VLConfig(**model.cfg.to_hf()))
        self._net = _filled(net.eval().float(), model)

    def inputs(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """One batch. No row is padded, so that no mask is needed: the peer's fastest way.

        Without `mm_token_type_ids` it would silently use plain positions.
        """
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows]).astype(np.int64))
        return {
            "input_ids": tokens,
            "mm_token_type_ids": (tokens == self.model.cfg.image_token_id).int(),
            "pixel_values": torch.from_numpy(np.concatenate([row.patches for row in rows])),
            "image_grid_thw": torch.tensor([row.grid for row in rows])}

    @torch.inference_mode()
    def prefill(self, inputs: dict[str, torch.Tensor], attention: str,
                cache: str = "dynamic") -> tuple[np.ndarray, tuple[torch.Tensor, Any]]:
        """(logits of the next token [B, V], what decoding starts from)."""
        self._net.set_attn_implementation(attention)
        self._net.model.rope_deltas = None
        past = self._static() if cache == "static" else transformers.DynamicCache()
        out = self._net(**inputs, use_cache=True, past_key_values=past, logits_to_keep=1)
        return out.logits[:, -1].numpy(), (out.logits[:, -1], past)

    @torch.inference_mode()
    def decode(self, start: tuple[torch.Tensor, Any], attention: str) -> np.ndarray:
        """The likeliest tokens [B, T]. The loop is ours: shorter than that of its `generate`."""
        self._net.set_attn_implementation(attention)
        logits, past = start
        chosen = [logits.argmax(-1, keepdim=True)]
        for _ in range(self.model.tokens - 1):
            out = self._net(input_ids=chosen[-1], past_key_values=past, use_cache=True,
                            logits_to_keep=1)
            chosen.append(out.logits[:, -1].argmax(-1, keepdim=True))
        return torch.cat(chosen, 1).numpy()

    def _static(self) -> transformers.StaticCache:
        return transformers.StaticCache(config=self._net.config.get_text_config(),
                                        max_cache_len=self.model.prompt + self.model.tokens)


@torch.inference_mode()
def fresh(start: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
    """A copy to decode from: a cache grows as it is used."""
    return copy.deepcopy(start)


def _filled(net: Any, model: Model) -> Any:
    flat = flax.traverse_util.flatten_dict(model.params)
    weights = {spec.name: to_hf_layout(spec, np.asarray(flat[spec.path]))
               for spec in tensor_table(model.cfg)}
    net.tie_weights()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.data = torch.from_numpy(np.array(weights[hub_name(model.cfg, name)]))
    return net
