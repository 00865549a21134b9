"""The README of an exported model: what is in it, where it comes from, and how it is used."""

from __future__ import annotations

import dataclasses
import re

import guardjax
from guardjax.cli.card_results import CardResults
from guardjax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
      name: title.
      cfg: the model's config.
      num_parameters, dtype: of the weights as written.
      model_hash: what verdicts of `guardjax judge` name the model by.
      source: what was exported, as it was named.
      adapter: what was merged into it, for people; "" for nothing.
      base: the model that all this started from, by its name on the hub; "" where it is not known.
      licence: an identifier of the hub; "" where it is not known.
      results: of an evaluation of the weights as they were before export; None without one.
      rounded: whether they were rounded at export, so that other weights were measured.
    """

    name: str
    cfg: ModelConfig
    num_parameters: int
    dtype: str
    model_hash: str
    source: str
    adapter: str = ""
    base: str = ""
    licence: str = ""
    results: CardResults | None = None
    rounded: bool = False


def model_card(facts: CardFacts) -> str:
    """The card in Markdown, with the header that the hub reads; it says only what is known."""
    vision, text = facts.cfg.vision, facts.cfg.text
    rows = {
        "architecture": f"`{facts.cfg.architecture}`",
        "parameters": f"{facts.num_parameters:,}, {facts.dtype}"
                      + (", head tied to the embedding" if facts.cfg.tie_word_embeddings else ""),
        "vision": f"{vision.depth} blocks of width {vision.hidden_size}, patches of "
                  f"{vision.patch_size} pixels, "
                  + (f"windows of {vision.window_size}" if vision.window_size else "no windows"),
        "text": f"{text.num_hidden_layers} layers of width {text.hidden_size}, "
                f"{text.vocab_size:,} tokens",
        "exported from": f"{_text(facts.source)}, by guardjax {guardjax.__version__}",
        "adapter": _text(facts.adapter) or "none merged at export",
        "model hash": f"`{facts.model_hash}`, as verdicts name it",
        "licence": facts.licence or "not stated; that of the model it was made from applies",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""{_header(facts)}
# {_text(facts.name)}

A vision-language model for judging pictures under the policy that it is shown, as in SafeGuard-VL
([arXiv 2603.01228](https://arxiv.org/abs/2603.01228)). It was written by guardjax.

| | |
|---|---|
{table}

## Use

```
guardjax verify .
guardjax judge PICTURES --policy FILE.yaml --model . --out verdicts.jsonl
```

The directory is an ordinary checkpoint: `transformers.{facts.cfg.architecture}
.from_pretrained(".")` loads it too. Pass `mm_token_type_ids` there: without them positions are
wrong.
{_measured(facts)}
## Limits

A verdict is advice, not a decision about a person. Anything malformed, cut off or undecided means
`needs_review`, never `safe`. {_quality(facts)} measure on your own pictures and policies
(`guardjax eval`) before you rely on it, and keep a human in the loop.
"""


def _measured(facts: CardFacts) -> str:
    """The section of results, with an empty line before and after; "" without any."""
    if facts.results is None:
        return ""
    lines = "\n".join(f"| {_text(split)} | {metric} | {value} | {constant} | {n} |"
                      for split, metric, value, constant, n in facts.results.lines)
    rounded = (f" They are of the weights before these were rounded to {facts.dtype}."
               if facts.rounded else "")
    return f"""
## Measured

On {_text(facts.results.data)}, by `guardjax eval`: per cent with 95 % intervals (bootstrap). An
answer without a valid verdict counts as wrong.{rounded}

| split | metric | value | always safe / unsafe | n |
|---|---|---:|---:|---:|
{lines}
"""


def _quality(facts: CardFacts) -> str:
    return ("This card states no quality:" if facts.results is None
            else "The numbers above are of those data alone:")


def _header(facts: CardFacts) -> str:
    lines = ["library_name: transformers", "pipeline_tag: image-text-to-text",
             f"tags: [guardjax, {facts.cfg.family}, content-moderation]"]
    if facts.base:
        lines.append(f"base_model: {facts.base}")
    if facts.licence:
        lines.append(f"license: {facts.licence}")
    return "\n".join(["---", *lines, "---"])


def _text(name: str) -> str:
    """A folder's name as Markdown that shows just that, on one line."""
    kept = "".join(c if c.isprintable() else " " for c in name)
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", kept)
