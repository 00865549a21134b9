"""Prints the README's tables, as Markdown, from the results that are checked in.

    python experiments/safeguard_vl/print_tables.py [runs/safeguard_vl]
    python experiments/safeguard_vl/print_tables.py --results experiments/safeguard_vl/rivals.json

With the folder of the runs the costs of seed 0 stand in the first table.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from guardjax.cli import rows
from guardjax.cli.cost import load_cost
from guardjax.eval.summary import MINUS
from guardjax.eval.tables import HELD_OUT, ResultRow, load_results

HERE = pathlib.Path(__file__).parent
TRIVIAL = ("always_safe", "always_unsafe")
COLUMNS = {"ladder macro-F1": ("ladder", "macro_f1"), "F1": ("test", "f1"), "PSS": ("test", "pss"),
           "pair acc.": ("test", "pair_accuracy"), "invalid": ("test", "invalid_rate"),
           "retention": ("test", "retention"), "captions": ("test", "caption_exact"),
           "questions": ("test", "question_exact"), "rules": ("test", "rule_accuracy")}
CONTROLS = {"policy shuffled": "test_policy_shuffled", "picture removed": "test_image_removed",
            "told in words": "test_in_words"}


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Prints one table and an empty line."""
    print("| " + " | ".join(head) + " |", "|---" * len(head) + "|",
          *("| " + " | ".join(line) + " |" for line in lines), "", sep="\n")


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.json",
                        help="the rows (default: those of SafeGuard-VL)")
    args = parser.parse_args()
    found = load_results(args.results)
    means = {(row.variant, row.split, row.metric): row for row in found if row.seed is None}
    variants = [v for v in (*TRIVIAL, *rows.MAIN, *rows.THINK, *rows.RIVALS)
                if (v, "test", "pss") in means]
    names, seen = rows.names(), {row.variant for row in found}

    def number(row: ResultRow | None, interval: bool = True) -> str:
        if row is None or row.value != row.value:
            return "–"
        value, low, high = (f"{100 * x:.0f}" for x in (row.value, row.low, row.high))
        return f"{value} [{low}–{high}]" if interval and (low, high) != (value, value) else value

    def cost(variant: str) -> list[str]:
        spent = load_cost(args.runs / variant / "seed0") if args.runs else None
        return [f"{spent.cpu_seconds:.0f} s", f"{spent.tokens:,}"] if spent else ["", ""]

    seeds = {v: {row.seed for row in found if row.variant == v and row.seed is not None}
             for v in variants}
    table(["row", "seeds", "CPU", "tokens", *COLUMNS], [
        [names[v], str(len(seeds[v]) or 1) if v not in TRIVIAL else "", *cost(v),
         *(number(means.get((v, *column))) for column in COLUMNS.values())] for v in variants])
    for variant in ("sft_varied", "grpo_varied", "sft_l3", "grpo_l3", *rows.RIVALS):
        for metric in ("pss", "retention"):
            each = [f"{100 * row.value:.0f}" for row in found if row.seed is not None
                    and (row.variant, row.split, row.metric) == (variant, "test", metric)]
            if each:
                print(f"{names[variant]}, {metric} by seed: {', '.join(each)}\n")
    for title, splits in (("PSS where something is held out", {t: s for s, t in HELD_OUT.items()}),
                          ("Controls (PSS)", CONTROLS)):
        print(f"{title}\n")
        table(["row", *splits], [
            [names[v], *(number(means.get((v, split, "pss")), False) for split in splits.values())]
            for v in variants if v not in TRIVIAL])
    table(["trained on, F1 (accuracy on L1)", *(f"L{k}" for k in range(1, 6))], [
        [names[v], *(number(next((row for (variant, split, _), row in means.items() if
                                  variant == v and split.startswith("ladder/")
                                  and split.endswith(f"L{k}")), None), False)
                     for k in range(1, 6))] for v in rows.MATRIX if v in seen])
    for row in found:
        if MINUS in row.variant:
            title = MINUS.join(names.get(v, v) for v in row.variant.split(MINUS))
            print(f"{row.metric}: {title} {100 * row.value:+.1f} "
                  f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]")


if __name__ == "__main__":
    main()
