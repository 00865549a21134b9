"""Pictures under many policies at a time, for batches whose prompts branch from a picture.

Labels stay balanced, so that no constant verdict earns more than half: half of one picture's
policies flag it, or both members of an edited pair meet policies that each flag one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from guardjax.policies import Policy, Wording
from guardjax.world.builder import WorldRecord

# (generator, names in the pictures) -> a policy and the wording to show it in
DrawPolicy = Callable[[np.random.Generator, Sequence[str]], tuple[Policy, Wording]]
Asked = tuple[WorldRecord, Policy, Wording]

_TRIES = 40             # pictures, or pairs, that are drawn before giving up
_DRAWS_A_POLICY = 8     # policies drawn for one that is wanted


def flips(records: Sequence[WorldRecord], draw: DrawPolicy, number: int,
          rng: np.random.Generator) -> list[Asked] | None:
    """One picture under `number` (even) policies, half of which flag it; None if none is found."""
    for _ in range(_TRIES):
        record = records[int(rng.integers(len(records)))]
        found: dict[str, list[Asked]] = {"safe": [], "unsafe": []}
        for _ in range(_DRAWS_A_POLICY * number):
            policy, wording = draw(rng, record.objects)
            asked = found[policy.judge(record.attributes).verdict]
            if len(asked) < number // 2:
                asked.append((record, policy, wording))
            if all(len(each) == number // 2 for each in found.values()):
                return [*found["safe"], *found["unsafe"]]
    return None


def edits(records: Sequence[WorldRecord], draw: DrawPolicy, number: int,
          rng: np.random.Generator) -> list[Asked] | None:
    """Both members of an edited pair under `number` policies that each flag one of them.

    First one member under all, then the other under the same; None if none is found. `records` 2k
    and 2k + 1 are the members of pair k.
    """
    for _ in range(_TRIES):
        first = 2 * int(rng.integers(len(records) // 2))
        pair = (records[first], records[first + 1])
        # Sorted: the order of a set differs from process to process.
        changed = tuple(sorted(set(pair[0].objects) ^ set(pair[1].objects)))
        chosen: list[tuple[Policy, Wording]] = []
        for _ in range(_DRAWS_A_POLICY * number):
            policy, wording = draw(rng, changed)
            if len({policy.judge(record.attributes).verdict for record in pair}) == 2:
                chosen.append((policy, wording))
            if len(chosen) == number:
                return [(record, *each) for record in pair for each in chosen]
    return None
