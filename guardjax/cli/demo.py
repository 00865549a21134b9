"""`guardjax demo`: short versions of the main rows, a table, a report, and two verdicts that differ."""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

_DESCRIPTION = """\
Trains short versions of the experiment's main rows from the shipped base model, measures them,
prints the table and writes OUT/report.html and OUT/results.json. Minutes on two CPU cores.
"""

NAMES = {
    "always_safe": "always safe", "always_unsafe": "always unsafe", "base": "base",
    "sft_l3": "SFT, one policy (L3)", "sft_varied": "SFT, varied policies",
    "exact_varied": "exact expected reward, varied", "grpo_l3": "GRPO, one policy (L3)",
    "grpo_varied": "GRPO, varied policies",
}
# Short runs; an SFT step costs about half a GRPO step, so equal steps are equal pictures seen.
STEPS = {"sft_l3": 60, "sft_varied": 60, "grpo_l3": 60, "grpo_varied": 60}
WORLD = {"train": 1000, "test": 60}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `demo`."""
    parser = subparsers.add_parser(
        "demo", help="train short versions of the main rows and write a report",
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder for everything")
    parser.add_argument("--configs", default="configs/safeguard_vl", metavar="DIR",
                        help="folder of the row configs (default: configs/safeguard_vl)")
    parser.add_argument("--steps-scale", type=float, default=1.0, metavar="X",
                        help="train X times as many steps (default: 1)")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from rich.console import Console

    from guardjax.cli import compose, measure
    from guardjax.eval.baselines import always
    from guardjax.eval.guard import Guard
    from guardjax.eval.records import save_predictions
    from guardjax.eval.summary import contrast, summarise
    from guardjax.eval.tables import save_results, terminal_table
    from guardjax.train.console import RunConsole

    started, console, out = time.monotonic(), Console(), pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    sizes = ",".join(f'"{split}": {n}' for split, n in WORLD.items())
    models = {"base": compose.model_dir("base")}
    for name, steps in STEPS.items():
        steps = max(12, round(steps * args.steps_scale))
        console.rule(f"{NAMES[name]}: {steps} steps")
        run = compose.load_config(f"{args.configs}/{name}.py", [
            f"stages.0.steps={steps}", f"world.sizes={{{sizes}}}"])
        models[name] = compose.train(run, out / name, RunConsole(run.log.every_steps))
    console.rule("measuring")
    questions = measure.plan_questions(
        compose.world_directory(run), compose.policy_splits(), measure.Plan(24, 10, 20))
    predictions = []
    for name, path in models.items():
        console.print(f"{NAMES[name]}: {len(questions)} prompts")
        predictions += measure.measure(Guard.load(path), questions, name, 0)
    base = [row for row in predictions if row.variant == "base"]
    everything = [*always(base, "safe"), *always(base, "unsafe"), *predictions]
    rows = summarise(everything, per_seed=False)
    contrasts = [contrast(everything, "grpo_varied", other, "test", "pss")
                 for other in ("base", "grpo_l3", "sft_varied")]
    save_predictions(out / "predictions.jsonl", predictions)
    save_results(out / "results.json", rows)
    console.print(terminal_table(rows, names=NAMES, title="Policy world, test split, this run"))
    for row in contrasts:
        console.print(f"PSS, {row.variant}: {100 * row.value:+.0f} points "
                      f"[{100 * row.low:+.0f}, {100 * row.high:+.0f}]", highlight=False)
    _write_report(out, rows, contrasts, predictions, questions, list(models))
    _two_verdicts(console, Guard.load(models["grpo_varied"]), questions)
    console.print(f"report: {out / 'report.html'}   ({time.monotonic() - started:.0f} s)")
    return 0


def _write_report(out: pathlib.Path, rows: Any, contrasts: Any, predictions: Any, questions: Any,
                  variants: list[str]) -> None:
    from guardjax.eval.figures import learning_curves, series_from_rows
    from guardjax.eval.gallery import Picture, gallery_cases
    from guardjax.eval.report import Report, ReportFigure, save_report
    from guardjax.train.metrics import read_metrics

    examples = [q.example for q in questions if q.split == "test" and q.example.kind == "judge"]
    pictures = {e.image_id: Picture(e.image, e.image_id) for e in examples}
    policies = {e.policy_id: (e.policy_id, e.policy_text) for e in examples}
    judged = [row for row in predictions if row.judged and row.split == "test"]
    cases = gallery_cases(judged, pictures, policies, variants=["base", "grpo_varied"])
    curves = {name: read_metrics(out / name / "metrics.jsonl") for name in ("grpo_l3", "grpo_varied")}
    panels = {
        title: {NAMES[name]: series_from_rows(lines, key) for name, lines in curves.items()}
        for title, key in (("Reward", "reward/total"), ("Right verdicts", "rollout/right"),
                           ("Groups without signal", "grpo/zero_variance"))}
    figure = ReportFigure(
        "Learning curves", learning_curves(
            panels, as_percent=("Right verdicts", "Groups without signal")),
        "Sampled answers during GRPO; prompts come in pairs with opposite labels.")
    save_report(out / "report.html", Report(
        title="guardjax: guards that follow the policy they are shown",
        subtitle="Short demonstration runs on the policy world; toy numbers, not the paper's.",
        rows=rows, variants=["always_safe", "always_unsafe", *variants], names=NAMES,
        contrasts=contrasts, figures=[figure], cases=cases))


def _two_verdicts(console: Any, guard: Any, questions: Any) -> None:
    """Two pictures, each under two policies that disagree about it."""
    by_picture: dict[str, dict[str, Any]] = {}
    for question in questions:
        example = question.example
        if question.split == "test" and example.kind == "judge":
            by_picture.setdefault(example.image_id, {}).setdefault(example.label, example)
    shown = [labels for labels in by_picture.values() if len(labels) == 2][:2]
    for labels in shown:
        for label, example in labels.items():
            (text, _), = guard.answer([example.image], example.policy_text)
            console.print(f"{example.image_id} under “{example.policy_text}”: {text} "
                          f"(true: {label})", highlight=False, markup=False)
