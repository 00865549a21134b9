"""Which prompts go through a model together: those that begin alike, and those alike in length.

A batch costs as many tokens as its longest prompt times its rows, and decodes until its longest
answer ends. So prompts are taken in an order of kind and length, which changes no answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from guardjax.data.prompts import IMAGE_FIRST
from guardjax.types import PolicyExample

MAX_BRANCHES = 16
# Encoding a trunk again (a picture through its tower, then its tokens) costs about as much as so
# many branches of a policy and a question do. Only the choice of M depends on it.
_TRUNK_COST = 2


@dataclasses.dataclass(frozen=True)
class Together:
    """Prompts of one forward pass.

    Attributes:
      places: of the prompts among all that are asked.
      shown: the same, filled up to a whole batch by prompts that are shown again.
      branches: M; each M of `shown` are one trunk's.
    """

    places: list[int]
    shown: list[int]
    branches: int


def plan_batches(examples: Sequence[PolicyExample], template: str, batch: int,
                 most: int = MAX_BRANCHES) -> list[Together]:
    """Every prompt in one batch of `batch` prompts, which follow from the examples alone."""
    branches, runs, alone = plan_trunks(examples, template, min(most, batch))
    rows, batches = batch // branches, []
    for start in range(0, len(runs), rows):
        places = [place for run in runs[start:start + rows] for place in _filled(run, branches)]
        shown = _filled(places, rows * branches, branches)
        batches.append(Together(places, shown, branches))
    for has_image in (True, False):
        some = [place for place in alone if (examples[place].image is not None) == has_image]
        for start in range(0, len(some), batch):
            places = some[start:start + batch]
            batches.append(Together(places, _filled(places, batch), 1))
    return batches


def trunk_of(example: PolicyExample, template: str) -> Hashable:
    """What prompts of one trunk have in common; None for a prompt that is a trunk of its own.

    Pictures are compared by identity: who shows one picture often passes one array. Verdicts are
    kept apart from captions and the like, whose answers are longer.
    """
    if template == IMAGE_FIRST:
        return None if example.image is None else (id(example.image), _in_words(example))
    return (example.policy_text, example.image is None) if example.policy_text else None


def choose_branches(group_sizes: Sequence[int], most: int = MAX_BRANCHES) -> int:
    """M, a power of two up to `most`, with which groups of these sizes cost least; 1 for none.

    A group takes ceil(size / M) trunks, each with M branches, real or not.
    """
    def cost(branches: int) -> int:
        return sum(-(-size // branches) for size in group_sizes) * (_TRUNK_COST + branches)

    choices = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return min(choices, key=cost) if group_sizes else 1


def plan_trunks(examples: Sequence[PolicyExample], template: str,
                most: int = MAX_BRANCHES) -> tuple[int, list[list[int]], list[int]]:
    """(M, runs of at most M places in `examples` with one trunk, places that stand alone).

    Runs, and places alone, come in an order in which neighbours are alike in kind and length.
    """
    groups: dict[Hashable, list[int]] = {}
    alone: list[int] = []
    for place, example in enumerate(examples):
        trunk = trunk_of(example, template)
        if trunk is None:
            alone.append(place)
        else:
            groups.setdefault(trunk, []).append(place)
    branches = choose_branches([len(group) for group in groups.values()], most)
    like = lambda place: _likeness(examples[place])
    if branches == 1:
        rest = [place for group in groups.values() for place in group]
        return 1, [], sorted([*alone, *rest], key=like)
    runs = []
    for group in groups.values():
        ordered = sorted(group, key=like)
        runs += [ordered[start:start + branches] for start in range(0, len(ordered), branches)]
    return branches, sorted(runs, key=lambda run: like(run[-1])), sorted(alone, key=like)


def _filled(places: list[int], size: int, last: int = 1) -> list[int]:
    """`places` made `size` long by its last `last` ones again and again."""
    return places + places[-last:] * ((size - len(places)) // last)


def _likeness(example: PolicyExample) -> tuple:
    """Kinds are answered alike; pictures come before words, as they are other programs."""
    told = len(example.facts.get("scene") or "")
    return (example.image is None, _in_words(example), len(example.policy_text) + told,
            len(example.question))


def _in_words(example: PolicyExample) -> bool:
    return not example.policy_text
