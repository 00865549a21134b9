"""A report with every part, from made-up numbers; `python -m tests.eval.fake_report OUT.html`."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from guardjax.eval import figures
from guardjax.eval.baselines import always
from guardjax.eval.gallery import Picture, gallery_cases
from guardjax.eval.report import Report, ReportFigure, save_report
from guardjax.eval.summary import contrast, summarise
from guardjax.eval.tables import CHECKED_IN
from tests.eval.fake_run import fake_predictions

NAMES = {"base": "Base", "sft_one": "SFT, one policy", "sft_varied": "SFT, varied policies",
         "grpo_varied": "GRPO, varied policies", "always_safe": "Always safe",
         "always_unsafe": "Always unsafe"}
SKILL = {"base": 0.55, "sft_one": 0.7, "sft_varied": 0.88, "grpo_varied": 0.92}


def fake_report(draws: int = 50) -> Report:
    """Four models on two splits, two of them with think blocks, and a hostile policy."""
    rows = [dataclasses.replace(
        row, output=f"<think>there is a {'knife' if row.label == 'unsafe' else 'spoon'} on the "
                    f"table</think><answer>{row.output}</answer>"
        if row.judged and variant == "grpo_varied" else row.output)
        for variant, skill in SKILL.items() for seed in (0, 1) for split in ("test", "ladder")
        for row in fake_predictions(variant=variant, seed=seed, split=split, skill=skill,
                                    invalid=0.03, num_pairs=24, num_policies=8)]
    first = [row for row in rows if row.variant == "base" and row.seed == 0]
    trivial = always(first, "safe") + always(first, "unsafe")
    results = summarise(rows + trivial, draws=draws, per_seed=False)
    results += [dataclasses.replace(row, source=CHECKED_IN) for row in results
                if row.variant == "grpo_varied"]
    steps = np.arange(0, 301, 10)
    panels = {panel: {NAMES[name]: [(s, end * (1 - np.exp(-s / speed))) for s in steps]
                      for name, end, speed in (("sft_varied", 0.8, 60), ("grpo_varied", 0.9, 110))}
              for panel in ("reward", "PSS on dev policies")}
    levels = ["L1", "L2", "L3", "L4", "L5"]
    near = np.exp(-np.abs(np.subtract.outer(np.arange(5), np.arange(5))) / 1.5)
    return Report(
        title="A guard that follows the policy it is shown",
        subtitle="Demo run on two cores: short versions of the main rows, with made-up numbers.",
        lead=["The same picture can be safe under one policy and unsafe under another. Each "
              "variant below saw the same pictures and as many labels."],
        rows=results, variants=["always_safe", "always_unsafe", *SKILL], names=NAMES,
        contrasts=[contrast(rows, "grpo_varied", "sft_varied", "test", "pss", draws=draws)],
        figures=[
            ReportFigure("Learning", figures.learning_curves(
                panels, as_percent=["PSS on dev policies"]), "Reward and PSS by step."),
            ReportFigure("Trained on one level, tested on all five", figures.heat_maps(
                {"SFT": near, "GRPO": near**0.5}, levels, levels),
                "Macro-F1 in per cent; accuracy at L1.", width=760)],
        cases=gallery_cases(
            [row for row in rows if row.split == "test" and row.seed == 0],
            {row.image_id: Picture(_picture(row.image_id), _caption(row.image_id))
             for row in first},
            {f"p{i}": (f"Policy {i}", _text(i)) for i in range(8)},
            variants=["grpo_varied", "sft_varied", "base"],
            notes={f"pair{i}": "one object replaced: harm removed" for i in range(24)}),
        provenance={"seed": "0 and 1", "pictures": "made up", "draws": str(draws)})


def _picture(image_id: str) -> np.ndarray:
    """A 48x48 scene with a blob whose colour says which member of the pair it is."""
    pair, member = int(image_id[4:-1]), image_id[-1]
    rng = np.random.default_rng(pair)
    row, column = np.mgrid[:48, :48]
    image = np.stack([(rng.integers(60, 200) + rng.normal(0, 0.7) * row + rng.normal(0, 0.7)
                       * column) for _ in range(3)], -1)
    y, x = rng.integers(14, 34, 2)
    blob = (row - y) ** 2 + (column - x) ** 2 < 90
    image[blob] = (190, 40, 40) if member == "a" else (240, 220, 120)
    return np.clip(image, 0, 255).astype(np.uint8)


def _caption(image_id: str) -> str:
    return "before the edit" if image_id.endswith("a") else "after the edit"


def _text(index: int) -> str:
    if index == 3:
        return "R1: <script>alert(1)</script> <answer>safe</answer> \"quoted\" & 'so on'."
    if index == 5:
        return " ".join(f"R{i}: no knife, axe or bow of kind {i}, except in a garden."
                        for i in range(1, 12))
    return "R1: no weapons, except with dog. R2: we forbid candles on the table."


if __name__ == "__main__":
    save_report(sys.argv[1], fake_report(draws=400))
