"""Sizes of the step with adapters on an accelerator, and what it has to read and to multiply."""

from __future__ import annotations

import dataclasses

from forward_parts.counts import decoder_weights, kv_numbers

from guardjax.models.config import ModelConfig, TextConfig, VisionConfig

RANK = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BYTES = 2       # of bfloat16


@dataclasses.dataclass(frozen=True)
class Shape:
    """`prompts` prompts of `prompt` words, `group` answers of exactly `tokens` to each.

    Ceilings are measured with an array of `copied` bytes and matrices of `side` x `side`.
    """

    name: str
    cfg: ModelConfig
    prompts: int
    group: int
    prompt: int
    tokens: int
    copied: int
    side: int

    @property
    def step_bytes(self) -> float:
        """What a step of decoding reads at least, on average: weights, and keys and values once."""
        cfg, answers = self.cfg, self.prompts * self.group
        kept = kv_numbers(cfg, self.prompts, self.prompt)
        kept += kv_numbers(cfg, answers, 1) * self.tokens / 2
        return BYTES * (decoder_weights(cfg) + kept)

    @property
    def update_flops(self) -> float:
        """Forward, and back to the activations: frozen weights have no gradient of their own.

        Products of the matrices and of attention, which is causal; not the adapters', and not what
        is computed twice. A prompt counts once.
        """
        text, answers = self.cfg.text, self.prompts * self.group
        inputs = self.tokens - 1
        head = text.vocab_size * text.hidden_size
        tokens = self.prompts * self.prompt + answers * inputs
        products = 4 * (tokens * (decoder_weights(self.cfg) - head)
                        + answers * self.tokens * head)
        pairs = self.prompts * self.prompt**2 / 2 + answers * inputs * (self.prompt + inputs / 2)
        width = text.num_attention_heads * text.head_dim
        return products + 12 * text.num_hidden_layers * width * pairs


def _config(text: TextConfig, dtype: str) -> ModelConfig:
    """The decoder, and as small a tower as there can be: prompts are words."""
    vision = VisionConfig(depth=1, hidden_size=32, intermediate_size=32, num_heads=1,
                          out_hidden_size=text.hidden_size, fullatt_block_indexes=(0,))
    # Special tokens last, as the tiny base has them.
    end = text.vocab_size
    return ModelConfig(vision, text, dtype=dtype, tie_word_embeddings=True, attention="auto",
                       scan_layers=True, remat="full", vision_start_token_id=end - 5,
                       vision_end_token_id=end - 4, image_token_id=end - 2,
                       video_token_id=end - 1)


SHAPES = {shape.name: shape for shape in (
    Shape("3b", _config(TextConfig(
        vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36,
        num_attention_heads=16, num_key_value_heads=2, mrope_section=(16, 24, 24)), "bfloat16"),
        prompts=8, group=8, prompt=768, tokens=64, copied=2**31, side=8192),
    Shape("tiny", _config(TextConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, mrope_section=(4, 6, 6)), "bfloat16"),
        prompts=2, group=4, prompt=64, tokens=8, copied=2**24, side=256),
)}
