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
from guardjax.types import PolicyExample, PromptBatch, Segment

# A part of a prompt is shorter than a whole one.
PART_BUCKETS = (16, 32)


def branch_prompts(batcher: Batcher, examples: Sequence[PolicyExample], branches: int,
                   rows: slice = slice(None), *, begun: Sequence[int] = ()) -> PromptBatch:
    """B prompts, `branches` at a time from one trunk.

    Args:
      batcher: of the model.
      examples: B; each run of `branches` of them has one picture, or with `policy_first` one
        policy.
      branches: M.
      rows: of the B prompts, those whose arrays are made, with whole trunks; see
        `Batcher.prompts`.
      begun: ids that every answer is made to begin with.

    Raises:
      PromptError: a prompt that is too long, or prompts of one trunk that begin differently.
      ValueError: B does not divide by M, or `rows` cut a trunk's prompts apart.
    """
    if branches < 1 or len(examples) % branches:
        raise ValueError(f"{len(examples)} prompts do not divide into trunks of {branches}")
    own = rows.indices(len(examples))[:2]
    if any(end % branches for end in own):
        raise ValueError(f"rows {own[0]} to {own[1]} cut apart prompts of one trunk, which has "
                         f"{branches}")
    encoded = batcher.encode(examples, begun, rows)
    trees = [encoded[start:start + branches] for start in range(0, len(encoded), branches)]
    here = slice(*(end // branches for end in own))
    for tree in trees:
        _check_alike(tree)
    # A picture is the trunk's, or each branch has its own.
    shared = all((tree[0].features[:tree[0].trunk] >= 0).any() or not tree[0].vision.grids
                 for tree in trees)
    vision = (batcher.pack([tree[0] for tree in trees], here) if shared
              else batcher.pack(encoded, rows))
    lead = (len(trees[here]), branches)
    if vision is not None and not shared:
        vision = jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), vision)
        slots = vision.frame.shape[-1] // batcher.patches.merge_size**2
        trees = [[_moved(prompt, m * slots) for m, prompt in enumerate(tree)] for tree in trees]
    trunk = _padded(batcher, [_cut(tree[0], slice(tree[0].trunk)) for tree in trees], here)
    end = _padded(batcher, [_cut(prompt, slice(prompt.trunk, None))
                            for tree in trees for prompt in tree], rows)
    end = jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), end)
    next_pos = np.array([prompt.next_pos for prompt in encoded[rows]], np.int32).reshape(lead)
    return PromptBatch(end, next_pos, vision, trunk)


def part_buckets(batcher: Batcher) -> tuple[int, ...]:
    """The lengths that trunks and branches are padded to."""
    return (*PART_BUCKETS, *batcher.prompt_buckets)


def _padded(batcher: Batcher, parts: Sequence[EncodedPrompt], rows: slice) -> Segment:
    """Of all parts, the segment of `rows`: as long as the longest of all, with the same leaves."""
    length = bucket(max(len(part.ids) for part in parts), part_buckets(batcher))
    return batcher.pad(parts[rows], length, any((part.features >= 0).any() for part in parts))


def _check_alike(tree: Sequence[EncodedPrompt]) -> None:
    first = tree[0]
    for prompt in tree[1:]:
        alike = prompt.trunk == first.trunk and np.array_equal(
            prompt.ids[:prompt.trunk], first.ids[:first.trunk])
        # A picture in the trunk must be one and the same, not only as large.
        if alike and first.patches is not None and (first.features[:first.trunk] >= 0).any():
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
