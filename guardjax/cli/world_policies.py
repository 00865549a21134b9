"""A person's own policies over the policy world: they must speak of what its pictures can show."""

from __future__ import annotations

import os
from collections.abc import Sequence

from guardjax.policies import Policy, PolicyError, load_ladder, load_policy
from guardjax.train.config import unknown_name
from guardjax.world import catalogue


def is_policy_file(name: str) -> bool:
    """Whether a config's name of a policy is a file's."""
    return name.endswith((".yaml", ".yml"))


def named_policy(name: str) -> Policy:
    """The policy that a config names: a level of the ladder, "L1" to "L5", or a YAML file.

    Raises:
      ValueError: `name` is neither.
      PolicyError: see `load_world_policies`.
    """
    if is_policy_file(name):
        return load_world_policies([name])[0]
    ladder = load_ladder()
    if name not in ladder:
        raise ValueError(f"policies={name!r}: not 'varied', a ladder level {list(ladder)} or a "
                         "policy's YAML file")
    return ladder[name]


def load_world_policies(paths: Sequence[str | os.PathLike[str]]) -> list[Policy]:
    """Reads policies that the pictures' attributes decide.

    A name that no picture can show would make a rule that nothing violates, and every label under
    it "safe" by mistake.

    Raises:
      PolicyError: a file is no policy, is in words only, asks for a name or a context that the
        world does not have, or has the id of another.
    """
    found: dict[str, Policy] = {}
    for path in paths:
        source, policy = os.fspath(path), load_policy(path)
        if policy.id in found:
            raise PolicyError(source, None, "id", f"{policy.id!r} is another file's id too")
        _check(source, policy)
        found[policy.id] = policy
    return list(found.values())


def _check(source: str, policy: Policy) -> None:
    names = {*catalogue.THINGS, *catalogue.CATEGORIES}
    for rule in policy.rules:
        if rule.when is None:
            raise PolicyError(source, None, rule.id, "is words only, and pictures of the world are "
                              "labelled by their attributes; give the rule a 'when' condition")
        for condition in (rule.when, rule.unless):
            if condition is None:
                continue
            for name in sorted(condition.names() - names):
                raise PolicyError(source, None, rule.id, unknown_name("name", name, names))
            for context, value in sorted(condition.contexts()):
                if context not in catalogue.CONTEXTS:
                    raise PolicyError(source, None, rule.id, unknown_name(
                        "context", context, catalogue.CONTEXTS))
                if value not in catalogue.CONTEXTS[context]:
                    raise PolicyError(source, None, rule.id, unknown_name(
                        context, value, catalogue.CONTEXTS[context]))
