"""Qwen2.5-VL as pure functions over Linen modules, and its weights in and out."""
