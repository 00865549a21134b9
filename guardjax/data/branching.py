"""Prompts that begin alike, laid out as trunks and branches, so that the device sees each once.

With the template `image_first` one picture is the trunk and the policies that it is shown are the
branches; with `policy_first` one policy is the trunk and its pictures are the branches.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from guardjax.data.batching import Batcher, EncodedPrompt
from guardjax.data.prompts import PromptError
from guardjax.layout import bucket
from guardjax.types import PolicyExample, PromptBatch

# A part of a prompt is shorter than a whole one.
PART_BUCKETS = (16, 32)


def branch_prompts(batcher: Batcher, examples: Sequence[PolicyExample], branches: int, *,
                   begun: Sequence[int] = ()) -> PromptBatch:
    """B prompts, `branches` at a time from one trunk.

    Args:
      batcher: of the model.
      examples: B; each run of `branches` of them has one picture, or with `policy_first` one
        policy.
      branches: M.
      begun: ids that every answer is made to begin with.

    Raises:
      PromptError: a prompt that is too long, or prompts of one trunk that begin differently.
      ValueError: B does not divide by M.
    """
    if branches < 1 or len(examples) % branches:
        raise ValueError(f"{len(examples)} prompts do not divide into trunks of {branches}")
    encoded = batcher.encode(examples, begun)
    rows = [encoded[start:start + branches] for start in range(0, len(encoded), branches)]
    for row in rows:
        _check_alike(row)
    # A picture is the trunk's, or each branch has its own.
    shared = all((row[0].features[:row[0].trunk] >= 0).any() or row[0].patches is None
                 for row in rows)
    vision = batcher.pack([row[0] for row in rows] if shared else encoded)
    if vision is not None and not shared:
        vision = jax.tree.map(lambda leaf: leaf.reshape(len(rows), branches, *leaf.shape[1:]),
                              vision)
        slots = vision.frame.shape[-1] // batcher.patches.merge_size**2
        rows = [[_moved(prompt, m * slots) for m, prompt in enumerate(row)] for row in rows]
    trunks = [_cut(row[0], slice(row[0].trunk)) for row in rows]
    ends = [_cut(prompt, slice(prompt.trunk, None)) for row in rows for prompt in row]
    sizes = part_buckets(batcher)
    trunk, end = (batcher.pad(parts, bucket(max(len(part.ids) for part in parts), sizes))
                  for parts in (trunks, ends))
    lead = (len(rows), branches)
    end = jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), end)
    next_pos = np.array([prompt.next_pos for prompt in encoded], np.int32).reshape(lead)
    return PromptBatch(end, next_pos, vision, trunk)


def part_buckets(batcher: Batcher) -> tuple[int, ...]:
    """The lengths that trunks and branches are padded to."""
    return (*PART_BUCKETS, *batcher.prompt_buckets)


def _check_alike(row: Sequence[EncodedPrompt]) -> None:
    first = row[0]
    for prompt in row[1:]:
        alike = prompt.trunk == first.trunk and np.array_equal(
            prompt.ids[:prompt.trunk], first.ids[:first.trunk])
        # A picture in the trunk must be one and the same, not only as large.
        if alike and (first.features[:first.trunk] >= 0).any():
            alike = prompt.patches is first.patches or np.array_equal(
                prompt.patches, first.patches)
        if not alike:
            raise PromptError("prompts of one trunk begin differently: give each trunk one "
                              "picture (image_first) or one policy (policy_first)")


def _cut(prompt: EncodedPrompt, part: slice) -> EncodedPrompt:
    return prompt._replace(ids=prompt.ids[part], positions=prompt.positions[part],
                           features=prompt.features[part])


def _moved(prompt: EncodedPrompt, first: int) -> EncodedPrompt:
    """The prompt whose picture's features begin at slot `first` of its row."""
    return prompt._replace(features=np.where(prompt.features >= 0, prompt.features + first, -1))
