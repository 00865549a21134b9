"""The README's two pictures under two policies that disagree about both of them."""

from __future__ import annotations

import json
import pathlib

from rich.console import Console

from guardjax.cli.assets import example_file
from guardjax.policies import load_policy
from guardjax.policies.condition import Attributes
from guardjax.world.catalogue import CATEGORY_OF

PICTURES = ("knife.png", "dog.png")
POLICIES = ("no-weapons.yaml", "no-animals.yaml")


def true_verdicts(policy_name: str) -> dict[str, str]:
    """Picture -> "safe" or "unsafe" under one of `POLICIES`, executed on what is shown."""
    policy = load_policy(example_file(policy_name))
    truth = json.loads(example_file("truth.json").read_text(encoding="utf-8"))
    return {name: policy.judge(Attributes.of(
        truth[name]["objects"], CATEGORY_OF, truth[name]["context"])).verdict for name in PICTURES}


def judge_examples(console: Console, model: pathlib.Path, out: pathlib.Path) -> None:
    """Judges the pictures as `guardjax judge` does, once a policy; verdicts go to `out`."""
    # The command line itself, so that what is shown here is what a person gets.
    from guardjax.cli.main import main

    for policy_name in POLICIES:
        policy = load_policy(example_file(policy_name))
        verdicts = out / f"verdicts-{policy.id}.jsonl"
        verdicts.unlink(missing_ok=True)    # of an earlier model
        true = ", ".join(f"{name} {label}" for name, label in true_verdicts(policy_name).items())
        console.rule(f"guardjax judge, policy “{policy.title}”")
        console.print(f"{policy.render()} (true: {true})", highlight=False, markup=False)
        main(["judge", *(str(example_file(name)) for name in PICTURES),
              "--policy", str(example_file(policy_name)), "--model", str(model),
              "--out", str(verdicts)])
