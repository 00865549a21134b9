"""The default tiny model: Qwen2.5-VL with small numbers, for a laptop core."""

from __future__ import annotations

from guardjax.models.config import ModelConfig, TextConfig, VisionConfig

# Qwen's 14 special tokens follow the ordinary vocabulary in this order: <|endoftext|>,
# <|im_start|>, <|im_end|>, object_ref, box and quad (start, end), <|vision_start|>,
# <|vision_end|>, <|vision_pad|>, <|image_pad|>, <|video_pad|>.
NUM_SPECIAL_TOKENS = 14


def tiny_config(vocab_size: int = 1024, *, first_special_id: int | None = None,
                dtype: str = "float32") -> ModelConfig:
    """About 2 million parameters at 1,024 tokens.

    `first_special_id` is the id of `<|endoftext|>`; by default the specials end the vocabulary.
    """
    first = vocab_size - NUM_SPECIAL_TOKENS if first_special_id is None else first_special_id
    vision = VisionConfig(
        depth=4, hidden_size=128, intermediate_size=256, num_heads=2, out_hidden_size=128,
        patch_size=8, spatial_merge_size=2, temporal_patch_size=2, window_size=32,
        fullatt_block_indexes=(1, 3))
    text = TextConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, mrope_section=(4, 6, 6), rope_theta=10000.0,
        rms_norm_eps=1e-6, max_position_embeddings=4096,
        # A width of 128 wants larger weights than the 0.02 of width 3,584: about 1/sqrt(width).
        initializer_range=0.08,
        bos_token_id=first, eos_token_id=first + 2, pad_token_id=first)
    return ModelConfig(
        vision=vision, text=text, tie_word_embeddings=True, dtype=dtype,
        vision_start_token_id=first + 9, vision_end_token_id=first + 10,
        image_token_id=first + 12, video_token_id=first + 13)
