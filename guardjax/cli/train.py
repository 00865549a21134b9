"""`guardjax train`: run the stages of a config file."""

from __future__ import annotations

import argparse
import pathlib

from guardjax.cli.usage import plain, positive

_EPILOG = """\
example:
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/grpo_varied \\
      stages.0.steps=200 seed=1
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/gspo \\
      stages.0.rl.preset=gspo
  guardjax train --config configs/safeguard_vl/grpo_varied.py --out runs/mine \
      stages.0.rl.reward=my_rewards.py:mine

A reward of your own is a function in TRL's convention, plain or async:
  def mine(completions, label, **columns):    # policy_text, question, rule_ids, ...
      return [float(one in text) for text, one in zip(completions, label)]

A run that was stopped goes on where it was when the same command is given again. The trained model
is written to OUT/model as Hugging Face lays it out; adapters (lora.rank) are in it, and beside it
in PEFT's format in OUT/adapter/STAGE. Curves are drawn into OUT/curves, and `guardjax rollouts OUT`
shows what was sampled. A run that has its model is not trained again.

exit status: 0 trained, 1 the run gave up with its state kept, 2 bad input, 130 or 143 stopped.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `train`."""
    parser = subparsers.add_parser(
        "train", help="train a guard from a config file", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run's folder")
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
    from guardjax.cli import compose
    from guardjax.train import hosts
    from guardjax.train.console import RunConsole

    run = compose.load_config(args.config, args.overrides)
    first = hosts.is_first()
    path = compose.train(run, args.out, RunConsole(run.log.every_steps, enabled=first))
    if first:
        print(f"model: {path}")
    hosts.first_only(lambda: draw(args.out))
    return 0


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
