"""The compositions that a config can name, and where it may name others."""

from __future__ import annotations

from guardjax.rewards.compat_policy_shift import shift_contrast, shift_verdict
from guardjax.rewards.compat_safeguard_vl import accuracy_reward, format_reward
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.own import own_reward
from guardjax.rewards.pair_reward import pair_reward
from guardjax.rewards.verdict_reward import verdict_reward

# A right answer that also has its contrast right earns up to half as much again.
PAIR_WEIGHT = 0.5
# Those that look at what was sampled for another example.
COUNTERPART_REWARDS = (pair_reward, shift_contrast)

COMPOSITIONS: dict[str, Composition] = {
    "gated": Composition((Part("verdict", verdict_reward),)),
    "gated_pair": Composition(
        (Part("verdict", verdict_reward), Part("pair", pair_reward, PAIR_WEIGHT))
    ),
    "safeguard_vl": Composition(
        (Part("accuracy", accuracy_reward("yes_no")), Part("format", format_reward))
    ),
    "policy_shift": Composition(
        (Part("verdict", shift_verdict), Part("contrast", shift_contrast))
    ),
    "safeguard_vl_words": Composition(
        (Part("accuracy", accuracy_reward("safe_unsafe")), Part("format", format_reward))
    ),
}


def reward_by_name(name: str) -> Composition:
    """The composition of that name, or one's own: `FILE.py:NAME` or `MODULE:NAME`.

    Raises:
      ValueError: there is none; the message lists those that there are. See also `own_reward`.
    """
    if ":" in name:
        return own_reward(name)
    if name not in COMPOSITIONS:
        raise ValueError(f"unknown reward {name!r}; known are {', '.join(sorted(COMPOSITIONS))}, "
                         "and your own is FILE.py:NAME")
    return COMPOSITIONS[name]
