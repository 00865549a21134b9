"""The curves of a run as PNG files: one file a question that one asks of a training."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardjax.atomic import write_bytes
from guardjax.eval.figures import Series, learning_curves, series_from_rows

FOLDER = "curves"       # in the run's


@dataclasses.dataclass(frozen=True)
class Curve:
    """Which metrics share a panel, and what to look for in it."""

    name: str                   # of its file
    title: str
    keys: Mapping[str, str]     # label -> metric; "*" stands for all metrics that begin so
    look_for: str
    share: bool = False         # shown in per cent of 0 to 100


CURVES = (
    Curve("reward", "Reward, by part", {"*": "reward/*"},
          "Should rise and level off. A part that rises alone is what is being optimised."),
    Curve("verdicts", "Verdicts",
          {"right": "rollout/right", "said unsafe": "rollout/unsafe",
           "malformed": "rollout/invalid", "cut off": "rollout/truncated"},
          "Right should rise with the reward; malformed and cut off should fall to 0.", True),
    Curve("no_signal", "Groups without signal", {"": "grpo/zero_variance"},
          "Prompts whose answers all earn the same teach nothing. Near 100 the run is idle: harder "
          "prompts, a higher temperature or dynamic sampling.", True),
    Curve("length", "Length of answers, tokens", {"": "rollout/tokens"},
          "Growth without more right answers is padding."),
    Curve("entropy", "Entropy, nats a token", {"": "grpo/entropy"},
          "A fall to 0 is the end of exploration; a rise without bound is noise."),
    Curve("kl", "KL to the reference, nats a token",
          {"judged": "grpo/kl", "anchors": "grpo/anchor_kl"},
          "How far the model went. A jump, or growth after the reward stands still, is drift."),
    Curve("clip_fraction", "Clip fraction, of tokens", {"": "grpo/clip_fraction"},
          "0 with one update a rollout. As a rule of thumb, above 0.3 the updates are too many or "
          "too large."),
    Curve("grad_norm", "Gradient norm, before clipping", {"": "grad_norm"},
          "Spikes come before collapse; a steady norm far above optim.clip_norm asks for a lower "
          "rate."),
    Curve("logp_gap", "Sampler against trainer, nats a token", {"": "rollout/logp_gap"},
          "The same model must give the same log-probabilities: about 1e-6 in float32, below 0.02 "
          "in bfloat16."),
    Curve("loss", "Loss", {"": "loss"},
          "Of SFT, falls. Of GRPO, says little: advantages are centred, so that all but the "
          "penalties is near 0 at every step."),
)


@dataclasses.dataclass(frozen=True)
class DrawnCurve:
    """A curve with its picture."""

    curve: Curve
    png: bytes


def draw_curves(metrics: Sequence[Mapping[str, Any]]) -> list[DrawnCurve]:
    """The curves that the metrics have numbers for. A line is of one stage."""
    drawn = []
    for curve in CURVES:
        lines = _lines(curve, metrics)
        if lines:
            drawn.append(DrawnCurve(curve, learning_curves(
                {curve.title: lines}, as_percent=[curve.title] if curve.share else [])))
    return drawn


def save_curves(folder: pathlib.Path, metrics: Sequence[Mapping[str, Any]]) -> list[DrawnCurve]:
    """Draws the curves and writes them into `curves/` of the run's folder, each in one step."""
    drawn = draw_curves(metrics)
    for each in drawn:
        write_bytes(folder / FOLDER / f"{each.curve.name}.png", each.png)
    return drawn


def _lines(curve: Curve, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Label -> points. Stages are named where more than one has points."""
    found: dict[tuple[str, str], Series] = {}
    for stage in dict.fromkeys(line["stage"] for line in metrics):
        own = [line for line in metrics if line["stage"] == stage]
        for label, metric in _metrics_of(curve, own).items():
            points = series_from_rows(own, metric)
            # The only part of a reward is its total too: one line says it.
            if points and points not in found.values():
                found[stage, label] = points
    several = len({stage for stage, _ in found}) > 1
    # A line alone needs no name: the panel's title is it.
    return {": ".join(part for part in (stage, label) if part) if several else label: points
            for (stage, label), points in found.items()}


def _metrics_of(curve: Curve, lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, metric in curve.keys.items():
        if metric.endswith("*"):
            prefix = metric[:-1]
            names = dict.fromkeys(name for line in lines for name in line
                                  if name.startswith(prefix))
            found |= {name.removeprefix(prefix): name for name in names}
        else:
            found[label] = metric
    return found
