"""The policies that pictures are judged under together: each once, and what their verdicts are of.

Policies that are asked together share the encoding of a picture (`grouping.py`), and with it the
padding of their prompts, so that the last bits of a score depend on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardjax.eval.verdict_record import Pins
from guardjax.policies import Policy, text_hash


class PolicySetError(ValueError):
    """No policy, or one that is given twice."""


def check_policies(policies: Sequence[Policy], names: Sequence[str] = ()) -> None:
    """Checks that there are policies and that no two are the same one.

    Args:
      policies: those to be asked together.
      names: what a person calls each of them (files); by default their ids.

    Raises:
      PolicySetError: naming the two that are one.
    """
    if not policies:
        raise PolicySetError("there is no policy; give at least one")
    names = names or [policy.id for policy in policies]
    seen: dict[str, str] = {}
    for policy, name in zip(policies, names, strict=True):
        if policy.hash in seen:
            both = f"{seen[policy.hash]} and {name}"
            raise PolicySetError(f"{both} are the same policy ({policy.id}, version "
                                 f"{policy.version}, hash {policy.hash}): give each policy once")
        seen[policy.hash] = name


def pins_of(policies: Sequence[Policy], texts: Sequence[str], **others: str) -> list[Pins]:
    """What verdicts under each policy depend on; `others` are the other fields of `Pins`.

    `texts` are the words that the model reads of each policy.
    """
    together = "" if len(policies) == 1 else _hash_of_all(policies)
    return [Pins(policy_id=policy.id, policy_version=policy.version, policy_hash=policy.hash,
                 policy_text_hash=text_hash(text), policy_set=together, **others)
            for policy, text in zip(policies, texts, strict=True)]


def _hash_of_all(policies: Sequence[Policy]) -> str:
    """16 hex digits that do not depend on the order."""
    return text_hash(" ".join(sorted(policy.hash for policy in policies)))
