"""Splits of policies, frozen by hash, and what is held out beyond unseen policies.

| split | policies | words |
|---|---|---|
| train | endless, by index; train hashes only | training styles |
| dev, test | unseen by content | training styles |
| test_wordings | those of test | held-out styles |
| test_categories | about categories that training never names | training styles |
| test_shapes | one rule of a shape that training never shows | training styles |

A policy is unseen if no training policy bans the same set of things; its single rules may occur
in training policies beside other rules.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence

from guardjax.policies.generator import Shape, Vocabulary, generate_policy
from guardjax.policies.ladder import load_ladder
from guardjax.policies.policy import Policy
from guardjax.policies.wording import HELD_OUT_STYLES, TRAIN_STYLES, Style, Wording

HELD_OUT_CATEGORIES: tuple[str, ...] = ("gambling", "music")
HELD_OUT_SHAPES: tuple[Shape, ...] = (Shape.EXCEPTION, Shape.ALLOW_LIST)
TRAIN_SHAPES: tuple[Shape, ...] = tuple(s for s in Shape if s not in HELD_OUT_SHAPES)
SPLITS: tuple[str, ...] = ("dev", "test", "test_wordings", "test_categories", "test_shapes")

_TRIES = 2000  # in a row without a new policy, after which the vocabulary counts as used up


def policy_split(policy: Policy) -> str:
    """"train", "dev" or "test" from the policy's content alone (80, 10 and 10 percent).

    Two policies that ban the same things are in the same split, whatever seed, order, ids and
    words they come with.
    """
    share = int(policy.content_hash, 16) % 100
    return "train" if share < 80 else "dev" if share < 90 else "test"


@dataclasses.dataclass(frozen=True)
class PolicySplits:
    """Policies of every split over one vocabulary. Build with `make_splits`."""

    vocabulary: Vocabulary
    seed: int
    dev: tuple[Policy, ...]
    test: tuple[Policy, ...]
    test_categories: tuple[Policy, ...]
    test_shapes: tuple[Policy, ...]

    @property
    def test_wordings(self) -> tuple[Policy, ...]:
        """The test policies, to be put into held-out words (see `wording`)."""
        return self.test

    def policies(self, split: str) -> tuple[Policy, ...]:
        """The policies of one of `SPLITS`. Raises `ValueError` for another name."""
        if split not in SPLITS:
            raise ValueError(f"policy split {split!r} is not one of {list(SPLITS)}")
        return getattr(self, split)

    def styles(self, split: str) -> tuple[Style, ...]:
        """The styles that a split is put into words with; "train" is a split here."""
        if split != "train" and split not in SPLITS:
            raise ValueError(f"policy split {split!r} is not one of {['train', *SPLITS]}")
        return HELD_OUT_STYLES if split == "test_wordings" else TRAIN_STYLES

    def wording(self, split: str, index: int, *, shuffle: bool = False) -> Wording:
        """The wording of the `index`-th policy (or example) of a split."""
        return Wording(index, self.styles(split), shuffle)

    @functools.cached_property
    def _train_vocabulary(self) -> Vocabulary:
        return self.vocabulary.without(HELD_OUT_CATEGORIES)

    def train_policy(
        self, index: int, focus: Sequence[str] = (), shapes: Collection[Shape] = TRAIN_SHAPES
    ) -> Policy:
        """The `index`-th training policy; `focus` as in `generate_policy`.

        `shapes` is a choice of `TRAIN_SHAPES`, for those who want to begin with easy ones.

        Never a policy of dev or test, of the ladder, with a held-out shape or with a held-out
        category or a member of one (not even where `focus` names it).

        Raises:
          ValueError: a shape is held out, or the vocabulary has no such policy.
        """
        held_out = sorted(set(shapes) - set(TRAIN_SHAPES))
        if held_out:
            raise ValueError(f"shapes {held_out} are held out; choose from {list(TRAIN_SHAPES)}")
        ladder = _ladder_hashes()
        for attempt in range(_TRIES):
            policy = generate_policy(
                f"{self.seed}/train/{index}/{attempt}", self._train_vocabulary, shapes,
                focus=focus,
            )
            if policy_split(policy) == "train" and policy.content_hash not in ladder:
                return policy
        raise ValueError(f"no training policy found in {_TRIES} tries; the vocabulary is too small")


def make_splits(
    vocabulary: Vocabulary,
    seed: int = 0,
    *,
    dev: int = 50,
    test: int = 60,
    test_categories: int = 40,
    test_shapes: int = 40,
) -> PolicySplits:
    """Draws the evaluation policies; the numbers say how many of each.

    Raises:
      ValueError: a held-out category is not in the vocabulary, or the vocabulary is too small
        for so many different policies.
    """
    missing = [name for name in HELD_OUT_CATEGORIES if name not in vocabulary.categories]
    if missing:
        raise ValueError(f"held-out categories {missing} are not in the vocabulary; add them")
    seen = vocabulary.without(HELD_OUT_CATEGORIES)
    taken = set(_ladder_hashes())

    def collect(name: str, number: int, words: Vocabulary, **options) -> tuple[Policy, ...]:
        found: list[Policy] = []
        attempt = last = 0
        while len(found) < number and attempt - last < _TRIES:
            policy = generate_policy(f"{seed}/{name}/{attempt}", words, TRAIN_SHAPES, **options)
            wanted = "dev" if name == "dev" else "test"
            if policy_split(policy) == wanted and policy.content_hash not in taken:
                taken.add(policy.content_hash)
                found.append(policy)
                last = attempt
            attempt += 1
        if len(found) < number:
            raise ValueError(f"found {len(found)} of {number} {name} policies; ask for fewer")
        return tuple(found)

    return PolicySplits(
        vocabulary, seed,
        dev=collect("dev", dev, seen),
        test=collect("test", test, seen),
        test_categories=collect("test_categories", test_categories, vocabulary,
                                subjects=HELD_OUT_CATEGORIES),
        test_shapes=collect("test_shapes", test_shapes, seen, lead_shapes=HELD_OUT_SHAPES),
    )


@functools.cache
def _ladder_hashes() -> frozenset[str]:
    return frozenset(policy.content_hash for policy in load_ladder().values())
