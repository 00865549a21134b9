"""`guardjax eval`: score a model under policies over the policy world."""

from __future__ import annotations

import argparse
import pathlib
import sys

_EPILOG = """\
examples:
  guardjax eval --out runs/shipped                       the shipped guard, test policies and ladder
  guardjax eval --model runs/grpo_varied/model --policies house.yaml --out runs/house

Written to OUT: predictions.jsonl (every answer), results.json (every number with its interval) and
looks.jsonl (one line for every measuring of a test split).
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `eval`."""
    parser = subparsers.add_parser(
        "eval", help="score a model over the policy world", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="guard", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base' (default: guard)")
    parser.add_argument("--policies", nargs="*", metavar="FILE", default=[],
                        help="policy files; without any, the test policies and the ladder")
    parser.add_argument("--split", default="test", help="split of the world (default: test)")
    parser.add_argument("--pairs", type=int, default=50, metavar="N",
                        help="edited pairs that are shown (default: 50)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from rich.console import Console

    from guardjax.cli import compose, measure
    from guardjax.data import tasks
    from guardjax.eval.baselines import always
    from guardjax.eval.guard import Guard
    from guardjax.eval.harness import Question
    from guardjax.eval.records import save_predictions
    from guardjax.eval.summary import summarise
    from guardjax.eval.tables import columns_of, save_results, terminal_table
    from guardjax.policies import PolicyError, Wording, load_policy
    from guardjax.train.compilation import enable_compile_cache

    try:
        policies = [load_policy(path) for path in args.policies]
        guard = Guard.load(compose.model_dir(args.model))
        enable_compile_cache()
        pairs = max(args.pairs, 1)
        plan = measure.Plan(pairs, 0, 0) if policies else measure.Plan(*6 * (pairs,))
        directory = measure.evaluation_world(compose.cache_dir(), plan, args.split)
        if policies:
            records = measure.test_records(directory, args.split, args.pairs)
            questions = [Question(args.split, tasks.judge(record, policy, Wording(0)))
                         for record in records for policy in policies]
            # A policy that does not fit is refused before anything is computed or written.
            guard.batcher.prompts([q.example for q in questions[:len(policies)]])
        else:
            for split, why in measure.left_out(directory).items():
                print(f"guardjax eval: {split} is left out: {why}", file=sys.stderr)
            questions = measure.plan_questions(
                directory, compose.policy_splits(), plan, args.split)
    except (PolicyError, OSError, ValueError) as error:
        print(f"guardjax eval: {error}", file=sys.stderr)
        return 2
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.split.startswith("test"):
        measure.log_look(out, args.model, 0, guard.model_hash, len(questions))
    predictions = measure.measure(guard, questions, args.model, 0)
    judged = [row for row in predictions if row.judged]
    everything = [*always(judged, "safe"), *always(judged, "unsafe"), *predictions]
    rows = summarise(everything, per_seed=False)
    save_predictions(out / "predictions.jsonl", predictions)
    save_results(out / "results.json", rows)
    Console().print(terminal_table(
        rows, columns=columns_of(args.split), title=f"{args.model} on {args.split}"))
    return 0
