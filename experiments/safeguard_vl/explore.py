"""What helps GRPO on varied policies to learn: one thing changed at a time, measured on dev.

    python experiments/safeguard_vl/explore.py runs/explore [NAME ...]

Each variant is the row `grpo_varied`, seed 0, with the overrides below, trained and measured by
`guardjax experiment --split dev` in a folder of its own; what is finished is not done again. It has
half the row's steps: at the full number all are near what can be reached, and differ less. Prints
the table of all that is there.
"""

from __future__ import annotations

import pathlib
import sys

from guardjax.cli.cost import load_cost
from guardjax.cli.main import main as guardjax
from guardjax.eval.tables import load_results
from guardjax.train.metrics import METRICS_FILE, read_metrics

ROW, SEED = "grpo_varied", 0
STEPS = {"steps": 125}
# Where every prompt has a label, four fifths of the steps see as many labels.
UNANCHORED = {"rl.anchor_coef": 0.0, "data": '{"judge": 1.0}', "steps": 100}
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "temperature 1": {"rl.temperature": 1.0},
    "temperature 2": {"rl.temperature": 2.0},
    "no entropy bonus": {"rl.entropy_coef": 0.0},
    "entropy bonus 0.02": {"rl.entropy_coef": 0.02},
    "no k3": {"rl.kl_coef": 0.0},
    "k3 0.05": {"rl.kl_coef": 0.05},
    "no anchors": UNANCHORED,
    "anchors 30": {"rl.anchor_coef": 30.0},
    "group std": {"rl.advantage_scale": "group_std"},
    "dynamic sampling, no anchors": {"rl.dynamic_sampling": True} | UNANCHORED,
    "pair reward": {"rl.reward": "gated_pair"},
    "lr 2e-4": {"optim.lr": 2e-4},
    "lr 5e-5": {"optim.lr": 5e-5},
    "LoRA rank 8, lr 1e-3": {"lora.rank": 8, "optim.lr": 1e-3},
}
COLUMNS = (("dev", "pss"), ("ladder", "macro_f1"), ("dev", "invalid_rate"), ("dev", "retention"))
HEAD = ("tried", "CPU", "prompts with a label", "groups without signal, first / last 20 steps",
        "PSS", "ladder", "invalid", "retention")


def folder_of(out: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a variant."""
    return out / name.replace(" ", "_").replace(",", "")


def explore(out: pathlib.Path, name: str) -> int:
    """Trains and measures one variant; returns the exit status."""
    overrides = [word for key, value in (STEPS | VARIANTS[name]).items()
                 for word in ("--set", f"stages.*.{key}={value}")]
    return guardjax(["experiment", "--out", str(folder_of(out, name)), "--rows", ROW,
                     "--seeds", str(SEED), "--split", "dev", *overrides])


def line_of(out: pathlib.Path, name: str) -> str | None:
    """The line of the table, or None where the variant is not measured."""
    folder = folder_of(out, name)
    if not (folder / "results_dev.json").is_file():
        return None
    found = {(row.split, row.metric): row.value for row in load_results(folder / "results_dev.json")
             if row.variant == ROW and row.seed is None}
    run = folder / ROW / f"seed{SEED}"
    metrics, cost = read_metrics(run / METRICS_FILE), load_cost(run)
    silent = [100 * sum(part) / len(part) for part in (
        [line["grpo/zero_variance"] for line in metrics if first <= line["step"] <= last]
        for first, last in ((1, 20), (cost.steps - 19, cost.steps)))]
    cells = [name, f"{cost.cpu_seconds:.0f} s", f"{cost.labels:,}",
             f"{silent[0]:.0f} % / {silent[1]:.0f} %",
             *(f"{100 * found[column]:.0f}" for column in COLUMNS)]
    return "| " + " | ".join(cells) + " |"


def main(words: list[str]) -> int:
    """Runs the script."""
    unknown = set(words[1:]) - set(VARIANTS)
    if not words or unknown:
        print(__doc__ + f"\nnames: {', '.join(VARIANTS)}"
              + (f"\nunknown: {', '.join(sorted(unknown))}" if unknown else ""))
        return 2
    out = pathlib.Path(words[0])
    status = max([explore(out, name) for name in words[1:] or VARIANTS], default=0)
    lines = [line for name in VARIANTS if (line := line_of(out, name))]
    print("| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|", *lines, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
