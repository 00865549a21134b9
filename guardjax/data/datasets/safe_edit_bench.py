"""SafeEditBench (SafeGuard-VL, arXiv 2603.01228): edited pictures under five policies, L1 to L5.

Test has 601 rows over 128 pictures. The published columns do not say which two pictures are a pair,
so each picture is a cluster of its own. What `guardjax pairs build` writes has a column `pair_id`:
there the two are drawn together, and pair accuracy is measured. It has no splits: ask for "all".
"""

from __future__ import annotations

from guardjax.data.datasets.record import ShownPolicy
from guardjax.data.datasets.schema import Facts, Schema
from guardjax.data.datasets.tables import Row


def _read(row: Row) -> Facts:
    image, level = row.values["image_path"], row.values["policy_name"].strip()
    # "Policy L3" -> "L3": the paper's name of the level.
    policy_id = level.removeprefix("Policy").strip() or level
    text = row.values["policy"]
    return Facts(
        row_id=f"{image}/{policy_id}", image_id=image, variant=policy_id,
        files=(image, f"images/{image}"), pair_id=row.values["pair_id"] or "",
        policy=ShownPolicy.written(policy_id, text) if text.strip() else ShownPolicy(
            policy_id, "", ()))


SAFE_EDIT_BENCH = Schema(
    name="safeeditbench", title="SafeEditBench",
    home="https://huggingface.co/datasets/tyodd/SafeEditBench", gated=True,
    columns={"image": "any", "image_path": "text", "safety_label": "any", "policy_name": "text",
             "policy": "text"},
    optional={"pair_id": "text"},
    # The card gives words, the released script takes numbers too.
    label="safety_label",
    labels={"safe": "safe", "unsafe": "unsafe", "0": "safe", "1": "unsafe"},
    read=_read, own_policies=True, whole="metadata.jsonl",
    notes="L1 has no unsafe picture, so its F1 is undefined and its accuracy is what counts.")
