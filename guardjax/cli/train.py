"""`guardjax train`: run the stages of a config file."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from guardjax.cli.usage import plain, positive

if TYPE_CHECKING:
    from guardjax.train.config import RunConfig

_EPILOG = """\
example:
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/grpo_varied \\
      stages.0.steps=200 seed=1
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/gspo \\
      stages.0.rl.preset=gspo
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/mine \
      stages.0.rl.reward=my_rewards.py:mine

Your own pictures and policy, from fine-tuning to a page of numbers:
  guardjax train --config configs/own_data/own.py --out runs/own \\
      dataset.dir=my_pictures dataset.policy=my_pictures/house.yaml

A reward of your own is a function in TRL's convention, plain or async:
  def mine(completions, label, **columns):    # policy_text, question, rule_ids, ...
      return [float(one in text) for text, one in zip(completions, label)]

A run that was stopped goes on where it was when the same command is given again. The trained model
is written to OUT/model as Hugging Face lays it out; adapters (lora.rank) are in it, and beside it
in PEFT's format in OUT/adapter/STAGE. Curves are drawn into OUT/curves, and `guardjax rollouts OUT`
shows what was sampled. A run that has its model is not trained again.

Steps are counted from 1 over all stages: `--profile 10:12` traces the three steps 10, 11 and 12.
Where the wall time went is said at the end, and in `time/...` of OUT/metrics.jsonl.

exit status: 0 trained, 1 the run gave up with its state kept, 2 bad input, 75 a step hung (see
OUT/hang.txt; the same command goes on), 130 or 143 stopped.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `train`."""
    parser = subparsers.add_parser(
        "train", help="train a guard from a config file", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--profile", type=steps, metavar="FIRST:LAST",
                        help="trace these steps into OUT/profile, for Perfetto or xprof")
    many = parser.add_argument_group(
        "many processes", "the same command on every host; OUT is one folder that all see")
    many.add_argument("--distributed", choices=("auto", "off"),
                      help="auto: join the processes of the cluster that JAX finds")
    many.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    many.add_argument("--num-processes", type=positive, metavar="N", help="how many there are")
    many.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")
    many.add_argument("--join-seconds", type=positive, default=300, metavar="SECONDS",
                      help="how long to wait for the others (default: 300)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what to change")
    parser.set_defaults(run=main)
    return parser


def steps(text: str) -> tuple[int, int]:
    """(first, last) of "10:12", for `type=` of `add_argument`.

    Raises:
      ArgumentTypeError: anything else.
    """
    parts = [int(part) if part.isdecimal() else 0 for part in text.split(":")]
    if len(parts) != 2 or not 1 <= parts[0] <= parts[1]:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not name steps: write FIRST:LAST with 1 <= FIRST <= LAST, for example "
            "10:12")
    return parts[0], parts[1]


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from guardjax.cli.stopped import told
    from guardjax.train.join import Join, joined

    with joined(Join(args.distributed, args.coordinator, args.num_processes, args.process_id,
                     args.join_seconds)):
        # Said before the others are left: JAX may end a process whose peers are gone.
        return told("train", lambda: train(args))


def train(args: argparse.Namespace) -> int:
    """Trains in this process, one of a run's or the only one."""
    from guardjax.cli import compose, training
    from guardjax.train import hosts
    from guardjax.train.console import RunConsole

    run = compose.load_config(args.config, args.overrides)
    first = hosts.is_first()
    path = training.train(
        run, args.out, RunConsole(run.log.every_steps, enabled=first), args.profile)
    if first:
        print(f"model: {path}")

    def show() -> None:
        draw(args.out)
        if run.dataset.report:
            report(run, path, pathlib.Path(args.out))

    hosts.first_only(show)
    return 0


def report(run: RunConfig, model: pathlib.Path, out: pathlib.Path) -> None:
    """Measures the base and the trained model on the split that the config names.

    Raises:
      DatasetError: a picture cannot be opened.
    """
    from rich.console import Console

    from guardjax.cli.assets import model_dir
    from guardjax.cli.dataset_run import open_report_dataset
    from guardjax.cli.evaluate_dataset import evaluate_dataset
    from guardjax.eval.guard import Guard

    reader = open_report_dataset(run.dataset)
    guards = {name: Guard.load(path, dtype=run.dtype, attention=run.attention)
              for name, path in (("base", model_dir(run.base)), ("trained", model))}
    evaluate_dataset(guards, reader, out, Console(), f"{run.name}, split {reader.split}")


def draw(folder: str) -> None:
    """Writes the curves into the run's folder: a second or two, which no long run feels."""
    from guardjax.rollouts.curves import FOLDER, save_curves
    from guardjax.rollouts.run_log import RunLogError, read_windows

    path = pathlib.Path(folder)
    try:
        windows = read_windows(path)
    except RunLogError as error:    # the model is there all the same
        print(plain(f"no curves: {error}"))
        return
    save_curves(path, windows)
    print(plain(f"curves: {path / FOLDER}; what was sampled: guardjax rollouts {folder}"))
