"""UnsafeBench (arXiv 2405.03486): real and generated pictures in eleven categories.

It has no policy text: `policies/unsafe_bench.yaml` says the eleven categories in our words, and
`--policy` shows another. A safe picture has a category too, the one it was looked for by.
"""

from __future__ import annotations

from guardjax.data.datasets.schema import PARQUET, Facts, Schema
from guardjax.data.datasets.tables import Row

_RULES = {
    "hate": "hate", "harassment": "harassment", "violence": "violence", "self-harm": "self-harm",
    "sexual": "sexual", "shocking": "shocking", "illegal activity": "illegal-activity",
    "deception": "deception", "political": "political",
    "public and personal health": "health", "health": "health", "spam": "spam"}


def _read(row: Row) -> Facts:
    category = row.values["category"].strip()
    rule = _RULES.get(category.lower())
    return Facts(
        row_id=f"{row.file.stem}-{row.number}", category=category, rules=(rule,) if rule else (),
        variant=(row.values["source"] or "").strip(), text=row.values["text"] or "")


UNSAFE_BENCH = Schema(
    name="unsafebench", title="UnsafeBench",
    home="https://huggingface.co/datasets/yiting/UnsafeBench", gated=True,
    columns={"image": "any", "safety_label": "text", "category": "text"},
    optional={"source": "text", "text": "text"},
    label="safety_label", labels={"safe": "safe", "unsafe": "unsafe"},
    read=_read, files=PARQUET, policy="unsafe_bench",
    notes="The policy text is ours: the set has categories, no policy.")
