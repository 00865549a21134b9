"""The chat template: from an example to token ids, with trusted and untrusted text kept apart.

There are two orders, and a model understands the one that it was trained with. `image_first`, the
default: the picture, then the policy (data), then the question, so that one picture can be shown
many policies. `policy_first`: the policy, then the picture, so that one policy is read once for
many pictures. What comes first is the prompt's trunk. The trusted frame is Qwen's chat format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from guardjax.data.lengths import way_out
from guardjax.data.tokenizer import IMAGE_PAD, VISION_END, VISION_START, Tokenizer
from guardjax.types import PolicyExample

SYSTEM = "guard"
JUDGE_QUESTION = "does it follow the policy?"
CAPTION_QUESTION = "what is in the picture?"
IMAGE_FIRST, POLICY_FIRST = "image_first", "policy_first"
TEMPLATES = (IMAGE_FIRST, POLICY_FIRST)


class PromptError(ValueError):
    """A prompt that does not fit or does not make sense."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt; `num_units` image placeholders stand where the picture goes."""

    ids: tuple[int, ...]
    num_units: int
    trunk: int      # so many ids are the same for every prompt of the picture, or of the policy


def encode_prompt(
    tokenizer: Tokenizer, example: PolicyExample, num_units: int, buckets: Sequence[int], *,
    template: str = IMAGE_FIRST, begun: Sequence[int] = (),
) -> Prompt:
    """Builds the prompt of one example.

    Args:
      tokenizer: the model's tokenizer.
      example: what is asked; `example.image` decides whether placeholders are written.
      num_units: image tokens of the picture (0 without one).
      buckets: lengths that a prompt may be padded to, ascending.
      template: one of `TEMPLATES`.
      begun: ids that the answer is made to begin with.

    Raises:
      PromptError: the prompt is longer than the last of `buckets`. Nothing is ever truncated.
    """
    ids = tokenizer.trusted(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
    policy = (tokenizer.untrusted(f"policy: {example.policy_text}\n") if example.policy_text
              else [])
    picture = _picture(tokenizer, example, num_units)
    first, second = (picture, policy) if template == IMAGE_FIRST else (policy, picture)
    trunk = len(ids) + len(first)
    ids += first + second
    ids += tokenizer.trusted(f"{example.question}<|im_end|>\n<|im_start|>assistant\n")
    ids += begun
    if len(ids) > buckets[-1]:
        raise PromptError(
            f"example {example.example_id or '(unnamed)'}: the prompt has {len(ids)} tokens "
            f"({len(policy)} of policy, {num_units} of picture) and the limit is {buckets[-1]}; "
            f"shorten the policy, or train with {way_out('prompt', buckets, len(ids))}. Nothing is "
            "truncated")
    return Prompt(tuple(ids), num_units if example.image is not None else 0, trunk)


def check_template(template: str) -> None:
    """Checks that there is a template of this name.

    Raises:
      PromptError: there is not.
    """
    if template not in TEMPLATES:
        raise PromptError(f"template {template!r} is none; choose one of {', '.join(TEMPLATES)}")


def _picture(tokenizer: Tokenizer, example: PolicyExample, num_units: int) -> list[int]:
    if example.image is not None:
        return tokenizer.trusted(VISION_START + IMAGE_PAD * num_units + VISION_END)
    if scene := example.facts.get("scene"):
        # Words stand where the picture would: what is learned of one has a chance with the other.
        return [*tokenizer.trusted(VISION_START), *tokenizer.untrusted(scene),
                *tokenizer.trusted(VISION_END)]
    return []
