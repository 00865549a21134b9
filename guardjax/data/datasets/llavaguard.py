"""LlavaGuard (arXiv 2406.05113): rating, category and rationale under a policy with exceptions.

The tables have the addresses of the pictures on the web, not the pictures: they are looked for as
`images/NAME`, `SPLIT/NAME` with the last part of the address, and as `SPLIT/I.jpg`, I the row
counted from 0, which is how SafeGuard-VL's released script saves them. Some addresses are dead:
open the reader with `missing="drop"`, and say how many rows were left.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from guardjax.data.datasets.record import ShownPolicy
from guardjax.data.datasets.schema import FOLDER, PARQUET, Facts, Schema
from guardjax.data.datasets.tables import Row

RULES = tuple(f"O{i}" for i in range(1, 10))
NONE_APPLIES = "NA"
# What the authors' template says of a category that is an exception to the usual policy.
_EXCEPTION = re.compile(r"category (O[1-9]) is declared as (non-violating|sensitive)", re.I)
_ASSESSMENT = "Assessment Steps:"


def policy_body(text: str) -> str:
    """The published text without the request for its own JSON answer: ours asks for a verdict."""
    return text.split(_ASSESSMENT)[0].replace("<image>", "").strip()


def exceptions(text: str) -> dict[str, str]:
    """Category -> "relaxed" (allowed altogether) or "sensitive" (forbidden altogether)."""
    return {category.upper(): "relaxed" if kind.lower() == "non-violating" else "sensitive"
            for category, kind in _EXCEPTION.findall(text)}


def category_id(category: str) -> str:
    """"O3: Sexual Content" -> "O3"; "NA: None applying" -> "NA"."""
    return category.split(":")[0].strip()


def shown(text: str) -> ShownPolicy:
    """A policy text with an id that says what is unusual in it: "default", "relaxed-O3"."""
    found = exceptions(text)
    parts = [f"{kind}-" + "-".join(sorted(c for c in found if found[c] == kind))
             for kind in ("relaxed", "sensitive") if kind in found.values()]
    return ShownPolicy(".".join(parts) or "default", text, RULES)


def _read(row: Row) -> Facts:
    values = row.values
    category, text = category_id(values["category"]), policy_body(values["policy"])
    address = values["url"] or ""
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    files = (f"{row.number - 1}.jpg",)
    if name:
        files = (name, f"images/{name}", f"{row.file.stem}/{name}", *files)
    return Facts(
        row_id=str(values["id"]), image_id=address, files=(
            *files, f"{row.file.stem}/{row.number - 1}.jpg"),
        policy=shown(text) if text else ShownPolicy("default", "", ()),
        rules=(category,), category=category, rationale=values["rationale"] or "",
        # Policy exceptions of the paper (PER): what its own category is an exception of.
        variant=exceptions(text).get(category, ""))


LLAVA_GUARD = Schema(
    name="llavaguard", title="LlavaGuard",
    home="https://huggingface.co/datasets/AIML-TUDA/LlavaGuard", gated=True,
    columns={"id": "any", "rating": "text", "category": "text", "policy": "text"},
    optional={"url": "text", "rationale": "text"},
    label="rating", labels={"safe": "safe", "unsafe": "unsafe"},
    read=_read, files=("{split}.csv", "data/{split}.csv", *PARQUET, *FOLDER), own_policies=True,
    notes="Addresses of pictures die: say how many rows were left.")
