"""The data card of an annotated data set, of what was found in it: `guardjax data check --card`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from guardjax.data.datasets.check import Check
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import LABELS

_SHOWN = 20


def dataset_card(reader: DatasetReader, found: Check) -> str:
    """Markdown: what it holds, by policy and category, what is wrong, what a constant answer gets.

    Pictures are described by numbers alone, and nothing of a row but counted values is told.

    Raises:
      DatasetError: a picture cannot be read for the hash; names row and file.
    """
    schema = reader.schema
    facts = {
        "Format": schema.name, "Published at": schema.home or "one's own, not published",
        "Split": reader.split, "Rows": f"{found.rows:,}", "Pictures": f"{found.pictures:,}",
        "Hash of ids, labels, policies and pictures": f"`{reader.digest_with_pictures}`"}
    if schema.gated:
        facts["Access"] = "its terms must be accepted there"
    if found.words:
        facts["Words of a caption"] = f"{found.words[0]} to {found.words[1]}"
    parts = [f"# Data card: {_text(schema.title)}", _table(("", ""), list(facts.items()))]
    if found.labels:
        parts += ["## Labels", _constant(found.labels),
                  _counts("Policy", found.labels)]
    if found.categories:
        parts += ["## Categories", _counts("Category", found.categories)]
    parts += ["## Checked", _table(("What", "Number"), [
        ("Bad rows, in no number above", len(found.errors)),
        ("Rows left out on purpose", len(found.dropped)),
        ("Pictures that are there twice, equal", sum(p.exact for p in found.duplicates)),
        ("Pictures that look alike", sum(not p.exact for p in found.duplicates)),
        ("Equal pictures under one policy with two labels", len(found.contradictions)),
        ("Pictures in the other set that was given, too", len(found.leaks))])]
    if schema.notes:
        parts += ["## Notes", schema.notes]
    parts += ["## Limits", "Labels are those of its annotators, under the policies above and no "
              "other. Licence, consent and how pictures were collected are for whoever publishes "
              "it to say; this card was written from the files alone."]
    return "\n\n".join(parts) + "\n"


def _constant(labels: Mapping[str, Mapping[str, int]]) -> str:
    """What any guard has to beat: accuracy, and F1 of unsafe, of the two constant answers."""
    total = Counter()
    for counts in labels.values():
        total.update(counts)
    safe, unsafe = (total[label] for label in LABELS)
    f1 = 2 * unsafe / (2 * unsafe + safe)
    return (f"{safe:,} safe and {unsafe:,} unsafe rows. A guard that always says safe has "
            f"{100 * safe / (safe + unsafe):.1f} per cent accuracy and an F1 of 0; one that always "
            f"says unsafe {100 * unsafe / (safe + unsafe):.1f} per cent and {100 * f1:.1f}.")


def _counts(title: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    lines = [(_text(name), *(numbers.get(label, 0) for label in LABELS))
             for name, numbers in counts.items()]
    more = [(f"and {len(lines) - _SHOWN} more", "", "")] if len(lines) > _SHOWN else []
    return _table((title, *LABELS), [*lines[:_SHOWN], *more])


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _text(words: str) -> str:
    """Words of a data set as Markdown that shows just them, on one line."""
    shown = "".join(c if c.isprintable() else " " for c in words)
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", shown)
