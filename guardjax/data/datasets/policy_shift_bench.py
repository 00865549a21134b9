"""PolicyShiftBench and PLUS (PolicyShiftGuard, arXiv 2607.05910): one picture, many rule bundles.

`question` is what its authors show: one variant of a policy for each of seven risk categories.
The label is that of the whole bundle; `policy_name` is the variant that was chosen to decide it.
Splits are `id_test` (policies of training) and `ood_test` (held-out policies), and others for
training; PLUS has the same columns.
"""

from __future__ import annotations

from guardjax.data.datasets.record import ShownPolicy
from guardjax.data.datasets.schema import PARQUET, Facts, Schema
from guardjax.data.datasets.tables import Row
from guardjax.policies.policy import text_hash


def _read(row: Row) -> Facts:
    values = row.values
    text = values["question"].replace("<image>", "").strip()
    # The bundle differs from row to row though the deciding variant may not.
    policy_id = f"{values['policy_name'].strip()}-{text_hash(text)[:6]}"
    image = values["image_idx"]
    return Facts(
        row_id=f"{row.file.stem}-{row.number}", image_id=str(image),
        files=tuple(f"images/{image}{suffix}" for suffix in (".jpg", ".png", ".jpeg", ".webp")),
        policy=ShownPolicy.written(policy_id, text) if text else ShownPolicy(policy_id, "", ()),
        category=values["section_title"], rationale=values["reason"] or "",
        variant=values["policy_name"].strip())


POLICY_SHIFT_BENCH = Schema(
    name="policyshiftbench", title="PolicyShiftBench",
    home="https://huggingface.co/datasets/PolicyShiftGuard/PolicyShiftBench",
    columns={"image": "any", "question": "text", "image_idx": "any", "section_title": "text",
             "policy_name": "text", "label": "text"},
    optional={"reason": "text"},
    label="label",
    labels={"pass": "safe", "block": "unsafe", "safe": "safe", "unsafe": "unsafe"},
    read=_read, files=(*PARQUET, "{split}.jsonl"), own_policies=True, split="id_test",
    notes="A verdict cites the bundle as one rule; the authors' two-digit categories are not asked "
          "for.")
