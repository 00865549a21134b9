"""`guardjax eval`: score a model over the policy world, or over annotated pictures."""

from __future__ import annotations

import argparse
import pathlib

from guardjax.cli.compute_flags import add_compute_flags
from guardjax.cli.scoring_flags import add_scoring_flags, scoring_of, way_of_asking
from guardjax.cli.usage import fail, positive
from guardjax.data.datasets.names import FORMATS

_EPILOG = """\
examples:
  guardjax eval --out runs/shipped                       the shipped guard, test policies and ladder
  guardjax eval --scoring probability --out runs/p       P(unsafe) by one forward pass a prompt
  guardjax eval --model runs/grpo_varied/model --policies house.yaml --out runs/house
  guardjax eval --dataset safeeditbench --dir SafeEditBench --out runs/safeeditbench
  guardjax eval --dataset own --dir my_pictures --policies house.yaml --out runs/mine
  guardjax eval --dataset unsafebench --dir UnsafeBench --model base --beside guard --out runs/two

Written to OUT: predictions.jsonl (every answer), results.json (every number with its interval),
report.html and looks.jsonl (one line for every measuring of a test split); where verdicts are
scored by one token also calibration.json (AUROC, Brier, ECE, TPR at fixed FPR of P(unsafe)), and
answer_cost.json (tokens and milliseconds a picture).
Answers are kept in OUT/answers as they come: after an interruption the same command goes on, and
what is there is not asked again. Answers of another model, or to other questions, are refused.
With --part I/N on each of N hosts the rows of a data set are asked by all of them; numbers are
computed once, of all answers.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `eval`."""
    parser = subparsers.add_parser(
        "eval", help="score a model over the policy world or a data set", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="guard", metavar="DIR",
                        help="model directory, or the shipped 'guard' or 'base' (default: guard)")
    parser.add_argument("--beside", action="append", default=[], metavar="DIR",
                        help="a further model on the same rows of a data set, with its paired "
                             "difference from --model; may be given again")
    parser.add_argument("--policies", nargs="*", metavar="FILE", default=[],
                        help="policy files; without any, the test policies and the ladder; for a "
                             "data set at most one, where its rows have none")
    parser.add_argument("--split", help="split (default: test; of a data set, its usual one)")
    parser.add_argument("--dataset", choices=FORMATS, metavar="NAME",
                        help="a data set in the place of the world: " + ", ".join(FORMATS))
    parser.add_argument("--dir", metavar="DIR", help="the data set's folder, as the hub has it")
    parser.add_argument("--missing", choices=("refuse", "drop"), default="refuse",
                        help="what to do with rows of a data set whose picture is not there")
    parser.add_argument("--part", metavar="I/N",
                        help="of a data set ask the I-th of N parts only, one on each of N hosts "
                             "with the same --out; then the same command without --part counts")
    parser.add_argument("--pairs", type=positive, default=50, metavar="N",
                        help="edited pairs that are shown (default: 50)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    add_scoring_flags(parser)
    add_compute_flags(parser)
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    if (args.dataset is None) != (args.dir is None):
        return fail("eval", "--dataset and --dir belong together: a reader's name and a folder")
    if args.beside and not args.dataset:
        return fail("eval", "--beside compares models on a data set: give --dataset and --dir")
    if args.part and not args.dataset:
        return fail("eval", "--part splits the rows of a data set: give --dataset and --dir")
    if len({args.model, *args.beside}) <= len(args.beside):
        return fail("eval", "--model and --beside name a model twice; give each once")
    return _over_dataset(args) if args.dataset else _over_world(args)


def _over_dataset(args: argparse.Namespace) -> int:
    from rich.console import Console

    from guardjax.cli.assets import model_dir
    from guardjax.cli.evaluate_dataset import evaluate_dataset
    from guardjax.data.datasets.registry import open_dataset
    from guardjax.eval.answer_parts import Part, PartError, parse_part
    from guardjax.eval.guard import Guard
    from guardjax.policies import load_policy
    from guardjax.train.compilation import enable_compile_cache

    if len(args.policies) > 1:
        return fail("eval", f"{len(args.policies)} policies for a data set, whose labels are under "
                    "one; give one")
    try:
        part = parse_part(args.part) if args.part else Part()
    except PartError as error:
        return fail("eval", error)
    policy = load_policy(args.policies[0]) if args.policies else None
    reader = open_dataset(args.dataset, args.dir, args.split or "", policy=policy,
                          missing=args.missing)
    enable_compile_cache()
    try:
        guards = {name: Guard.load(model_dir(name), dtype=args.dtype, attention=args.attention,
                                   scoring=scoring_of(args), template=args.template)
                  for name in (args.model, *args.beside)}
    except ValueError as error:
        return fail("eval", error)
    first = guards[args.model]
    evaluate_dataset(guards, reader, pathlib.Path(args.out), Console(),
                     asked=way_of_asking(args, first.scoring, first.batcher.template), part=part)
    return 0


def _over_world(args: argparse.Namespace) -> int:
    from rich.console import Console

    from guardjax.cache_dir import cache_dir
    from guardjax.cli import compose, measure, outcome, world_answers
    from guardjax.cli.answer_cost import COST_FILE, answer_cost, show_costs, time_file
    from guardjax.cli.calibration_table import show_calibration
    from guardjax.cli.world_figures import world_figures
    from guardjax.cli.world_policies import load_world_policies
    from guardjax.data import tasks
    from guardjax.eval.answer_file import check_only, file_name
    from guardjax.eval.baselines import always
    from guardjax.eval.guard import Guard
    from guardjax.eval.harness import Question
    from guardjax.eval.records import save_predictions
    from guardjax.eval.report import Report, save_report
    from guardjax.eval.scoring import REASONED
    from guardjax.eval.summary import summarise
    from guardjax.eval.tables import save_results
    from guardjax.policies import Wording
    from guardjax.train.compilation import enable_compile_cache

    args.split = args.split or "test"
    console, absent = Console(), {}
    try:
        policies = load_world_policies(args.policies)
        guard = Guard.load(compose.model_dir(args.model), dtype=args.dtype,
                           attention=args.attention, scoring=scoring_of(args),
                           template=args.template)
        enable_compile_cache()
        plan = measure.Plan(args.pairs, 0, 0) if policies else measure.Plan(*6 * (args.pairs,))
        directory = measure.evaluation_world(cache_dir(), plan, args.split)
        if policies:
            records = measure.test_records(directory, args.split, args.pairs)
            questions = [Question(args.split, tasks.judge(record, policy, Wording(0)))
                         for record in records for policy in policies]
            # A policy that does not fit is refused before anything is computed or written.
            guard.batcher.prompts([q.example for q in questions[:len(policies)]])
        else:
            absent = {split: f"left out: {why}"
                      for split, why in measure.left_out(directory).items()}
            questions = measure.plan_questions(
                directory, compose.policy_splits(), plan, args.split)
        if guard.scoring.mode != REASONED:      # captions are answered in words
            questions = [question for question in questions if question.example.label]
    except ValueError as error:
        return fail("eval", error)
    for split, why in absent.items():
        console.print(f"{split} is {why}", markup=False)
    out = pathlib.Path(args.out)
    check_only(out / world_answers.ANSWERS, {args.model: guard.model_hash})
    pins = world_answers.pins_of(directory, args.split, questions, args.model, guard.model_hash,
                                 way_of_asking(args, guard.scoring, guard.batcher.template))
    stored = world_answers.open_answers(
        out / world_answers.ANSWERS / file_name(args.model), pins, questions)
    predictions = world_answers.ask_world(stored, lambda: guard, questions, out, console)
    judged = [row for row in predictions if row.judged]
    everything = [*always(judged, "safe"), *always(judged, "unsafe"), *predictions]
    results = outcome.Outcome(summarise(everything, per_seed=False), [])
    save_predictions(out / "predictions.jsonl", predictions)
    save_results(out / "results.json", results.everything)
    main_table = outcome.main_table(results, f"{args.model} on {args.split}", args.split)
    figures, counts = world_figures(
        predictions, args.split, measure.test_records(directory, args.split, args.pairs),
        compared=[args.model], shown=[args.model])
    further = outcome.further_tables(results, args.split)
    outcome.print_tables(console, (main_table, *further))
    calibration = show_calibration(console, predictions, out)
    costs = show_costs(console, {args.model: answer_cost(predictions, time_file(out, stored))},
                       out / COST_FILE)
    save_report(out / "report.html", Report(
        title=f"guardjax: {args.model} on {args.split}",
        subtitle="Pictures of the policy world; toy numbers.",
        rows=main_table.rows, variants=main_table.variants, columns=main_table.columns,
        tables=further, plain_tables=[*counts, *calibration, *costs], figures=figures,
        cases=outcome.gallery_of(predictions, questions, [args.model], args.split),
        provenance={"Model": guard.model_hash, "Prompts": f"{len(questions):,}",
                    "Scoring": str(guard.scoring), "Template": guard.batcher.template,
                    **{f"Policy {policy.id}": policy.hash for policy in policies}, **absent}))
    console.print(f"report: {out / 'report.html'}", markup=False)
    return 0
