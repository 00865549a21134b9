"""VLGuard (arXiv 2402.02207): pictures that are safe or harmful by themselves.

Its instructions test assistants and are not shown to a guard; what is judged is the picture, by
`safe`, under `policies/vlguard.yaml`, our words for its subcategories. Pictures lie in the folder
that `SPLIT.zip` unpacks to. Train has one row twice.
"""

from __future__ import annotations

from guardjax.data.datasets.schema import Facts, Schema
from guardjax.data.datasets.tables import Row

_RULES = {
    "sexually explicit": "sexually-explicit", "personal data": "personal-data",
    "violence": "violence", "political": "political", "race": "race",
    "professional advice": "professional-advice", "sex": "sex",
    "disinformation": "disinformation", "other": "other-groups"}


def _read(row: Row) -> Facts:
    image = row.values["image"]
    category = row.values["harmful_subcategory"] or ""
    rule = _RULES.get(category.strip().lower())
    return Facts(
        row_id=str(row.values["id"]), image_id=image, category=category,
        rules=(rule,) if rule else (), variant=row.values["harmful_category"] or "",
        files=(f"{row.file.stem}/{image}", image, f"images/{image}"))


VL_GUARD = Schema(
    name="vlguard", title="VLGuard",
    home="https://huggingface.co/datasets/ys-zong/VLGuard", gated=True,
    columns={"id": "any", "image": "text", "safe": "truth"},
    optional={"harmful_category": "text", "harmful_subcategory": "text"},
    label="safe", labels={"true": "safe", "false": "unsafe"},
    read=_read, files=("{split}.json", "data/{split}.json"), image=None, policy="vlguard",
    repeats=frozenset({"Ads_303871"}))
