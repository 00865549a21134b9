"""The chat template: from an example to token ids, with trusted and untrusted text kept apart.

The picture comes first, so that one picture can be shown many policies; then the policy (data);
then the question. The trusted frame is Qwen's chat format.
"""

from __future__ import annotations

import dataclasses

from guardjax.data.tokenizer import IMAGE_PAD, VISION_END, VISION_START, Tokenizer
from guardjax.types import PolicyExample

SYSTEM = "guard"
JUDGE_QUESTION = "does it follow the policy?"


class PromptError(ValueError):
    """A prompt that does not fit or does not make sense."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt; `num_units` image placeholders stand where the picture goes."""

    ids: tuple[int, ...]
    num_units: int


def encode_prompt(
    tokenizer: Tokenizer, example: PolicyExample, num_units: int, max_tokens: int
) -> Prompt:
    """Builds the prompt of one example.

    Args:
      tokenizer: the model's tokenizer.
      example: what is asked; `example.image` decides whether placeholders are written.
      num_units: image tokens of the picture (0 without one).
      max_tokens: room in the context for the prompt.

    Raises:
      PromptError: the prompt is longer than `max_tokens`. Nothing is ever truncated.
    """
    ids = tokenizer.trusted(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
    if example.image is not None:
        ids += tokenizer.trusted(VISION_START + IMAGE_PAD * num_units + VISION_END)
    elif scene := example.facts.get("scene"):
        # Words stand where the picture would: what is learned of one has a chance with the other.
        ids += tokenizer.trusted(VISION_START) + tokenizer.untrusted(scene)
        ids += tokenizer.trusted(VISION_END)
    if example.policy_text:
        policy = tokenizer.untrusted(f"policy: {example.policy_text}\n")
        ids += policy
    else:
        policy = []
    ids += tokenizer.trusted(f"{example.question}<|im_end|>\n<|im_start|>assistant\n")
    if len(ids) > max_tokens:
        raise PromptError(
            f"example {example.example_id or '(unnamed)'}: the prompt has {len(ids)} tokens "
            f"({len(policy)} of policy, {num_units} of picture) and the limit is {max_tokens}; "
            "shorten the policy or raise the limit. Nothing is truncated"
        )
    return Prompt(tuple(ids), num_units if example.image is not None else 0)
