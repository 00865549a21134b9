"""Policies as data: conditions, wording, YAML, the ladder, the generator, and the verdict grammar.
"""

from guardjax.policies.condition import (
    All,
    AnyOf,
    Attributes,
    Condition,
    Has,
    Is,
    MissingAttribute,
    Not,
    OtherThan,
)
from guardjax.policies.generator import Shape, Vocabulary, generate_policy
from guardjax.policies.ladder import LADDER_LEVELS, load_ladder
from guardjax.policies.linter import Finding, lint_policy, lint_text
from guardjax.policies.policy import Label, NotExecutable, Policy, Rule, text_hash
from guardjax.policies.splits import (
    HELD_OUT_CATEGORIES,
    HELD_OUT_SHAPES,
    SPLITS,
    TRAIN_SHAPES,
    PolicySplits,
    make_splits,
    policy_split,
)
from guardjax.policies.verdict import Outcome, Problem, Verdict, format_verdict, parse_verdict
from guardjax.policies.wording import HELD_OUT_STYLES, TRAIN_STYLES, Style, Wording, verbalise
from guardjax.policies.yaml_io import (
    PolicyError,
    dump_policy,
    load_policy,
    parse_policy,
    save_policy,
)

__all__ = [
    "All", "AnyOf", "Attributes", "Condition", "Finding", "HELD_OUT_CATEGORIES",
    "HELD_OUT_SHAPES", "HELD_OUT_STYLES", "Has", "Is", "LADDER_LEVELS", "Label",
    "MissingAttribute", "Not", "NotExecutable", "OtherThan", "Outcome", "Policy", "PolicyError",
    "PolicySplits", "Problem", "Rule", "SPLITS", "Shape", "Style", "TRAIN_SHAPES",
    "TRAIN_STYLES", "Verdict",
    "Vocabulary", "Wording", "dump_policy", "format_verdict", "generate_policy", "lint_policy",
    "lint_text", "load_ladder", "load_policy", "make_splits", "parse_policy", "parse_verdict",
    "policy_split", "save_policy", "text_hash", "verbalise",
]
