"""MM-SafetyBench (arXiv 2311.17600) and FigStep (arXiv 2311.05608): attacks on assistants.

Every row is an attack, so every label is unsafe: what can be measured is recall alone, and a guard
that always says unsafe gets all of it. Neither publishes safe rows or a policy; the policy is ours.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.schema import Facts, Schema
from guardjax.data.datasets.tables import Row, read_rows

_LABEL = "attack"       # a column that we add: the sets have none, as all of them are
_ALL_UNSAFE = {"true": "unsafe"}
# Folder or category of either set -> rule of policies/assistant_attacks.yaml.
_RULES = {
    "illegal_activitiy": "illegal-activity", "illegal activity": "illegal-activity",
    "hatespeech": "hate-speech", "hate speech": "hate-speech",
    "malware_generation": "malware", "malware generation": "malware",
    "physical_harm": "physical-harm", "physical harm": "physical-harm",
    "economicharm": "economic-harm", "fraud": "fraud", "sex": "adult-content",
    "adult content": "adult-content", "political_lobbying": "political-lobbying",
    "privacy_violence": "privacy", "privacy violation": "privacy",
    "legal_opinion": "legal-advice", "legal opinion": "legal-advice",
    "financial_advice": "financial-advice", "financial advice": "financial-advice",
    "health_consultation": "health-advice", "health consultation": "health-advice",
    "gov_decision": "government-decisions"}


def _attack(row: Row, **more: str) -> Row:
    return dataclasses.replace(row, values={**row.values, _LABEL: True, **more})


def _rule(category: str) -> tuple[str, ...]:
    rule = _RULES.get(category.strip().lower())
    return (rule,) if rule else ()


def _load_mm(directory: Path, split: str) -> list[Row]:
    """A folder a scenario, a file a kind of picture: SD, TYPO or SD_TYPO."""
    files = sorted((directory / "data").glob(f"*/{split}.parquet"))
    if not files:
        raise DatasetError(f"{directory} has no data/SCENARIO/{split}.parquet. "
                           f"{MM_SAFETY_BENCH.how_to_get(directory)}")
    return [_attack(row, scenario=file.parent.name)
            for file in files for row in read_rows(file, "image")]


def _read_mm(row: Row) -> Facts:
    category = row.values["scenario"]
    return Facts(row_id=f"{category}/{row.values['id']}", category=category, rules=_rule(category),
                 text=row.values["question"])


MM_SAFETY_BENCH = Schema(
    name="mm_safetybench", title="MM-SafetyBench",
    home="https://huggingface.co/datasets/PKU-Alignment/MM-SafetyBench",
    columns={"id": "any", "question": "text", "image": "any", "scenario": "text"},
    label=_LABEL, labels=_ALL_UNSAFE, read=_read_mm, load=_load_mm, policy="assistant_attacks",
    split="SD_TYPO", notes="Every row is unsafe: recall only.")


def _load_fig(directory: Path, split: str) -> list[Row]:
    """The repository's table of questions; `split` is SafeBench or SafeBench-Tiny."""
    names = {"SafeBench": "safebench.csv", "SafeBench-Tiny": "SafeBench-Tiny.csv"}
    if split not in names:
        raise DatasetError(f"FigStep has no split {split!r}; it has {', '.join(names)}")
    file = directory / "data" / "question" / names[split]
    if not file.is_file():
        raise DatasetError(f"there is no {file}. {FIG_STEP.how_to_get(directory)}")
    return [_attack(row, split=split) for row in read_rows(file)]


def _read_fig(row: Row) -> Facts:
    values = row.values
    number = f"{values['category_id']}_{values['task_id']}"
    # The last number is the form of the prompt that the repository's pictures are of.
    name = f"query_{values['dataset']}_{number}_6.png"
    return Facts(row_id=number, files=(f"../images/{values['split']}/{name}",),
                 category=values["category_name"], rules=_rule(values["category_name"]),
                 text=values["question"])


FIG_STEP = Schema(
    name="figstep", title="FigStep", home="https://github.com/ThuCCSLab/FigStep",
    columns={"dataset": "text", "category_id": "whole", "task_id": "whole",
             "category_name": "text", "question": "text", "split": "text"},
    label=_LABEL, labels=_ALL_UNSAFE, read=_read_fig, load=_load_fig, image=None,
    policy="assistant_attacks", split="SafeBench", notes="Every row is unsafe: recall only.")
