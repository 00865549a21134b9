"""Examples that rewards are tried on."""

from __future__ import annotations

import types

import pytest

from guardjax.types import PolicyExample

RULES = ("R1", "R2", "R3", "R4")
POLICY = "R1: no knives. R2: no beer. R3: no dice. R4: no bombs."


def make_example(label="unsafe", rule_ids=None, rules=RULES, **fields) -> PolicyExample:
    if rule_ids is None:
        rule_ids = ("R2",) if label == "unsafe" else ()
    fields = {"example_id": "scene/policy", "policy_text": POLICY, **fields}
    return PolicyExample(
        kind="judge", question="does it follow the policy?", label=label, rule_ids=rule_ids,
        facts={} if rules is None else {"rules": rules}, **fields,
    )


@pytest.fixture(scope="session")
def make() -> types.FunctionType:
    return make_example
