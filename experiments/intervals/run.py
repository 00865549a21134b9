"""How often a 95 % interval holds the truth: simulated evaluations with a known answer.

    python -m experiments.intervals.run [--evaluations 2000]

Each evaluation draws its scenes and policies anew. A guard is right on a (scene, policy) with a
probability on the logit scale of a mean, plus an effect of the scene, plus an effect of the
policy; the truth is the mean over both populations (or over the policies that there are, where
they are a fixed list). Prints the table of README.md as Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np

from guardjax.eval.bootstrap import interval
from guardjax.eval.cells import Cells, tabulate
from guardjax.eval.metrics import METRICS
from guardjax.eval.records import Prediction

SCENES, PER_SCENE = 200, 8
MEAN = 1.0          # logit: right in 73 % of the cells of a middling scene and policy
DRAWS = 199         # of the bootstrap, in each evaluation
IMAGES_ONLY, CROSSED = ("scenes",), ("scenes", "policies")


@dataclasses.dataclass(frozen=True)
class World:
    """A population of scenes and policies: standard deviations of their effects, on the logit."""

    title: str
    scene_effect: float
    policy_effect: float
    num_policies: int
    fixed_policies: bool = False    # the truth is about these policies, not about others like them


WORLDS: tuple[World, ...] = (
    World("five policies, a fixed list", 1.0, 1.0, 5, fixed_policies=True),
    World("40 policies of many, like each other", 1.0, 0.0, 40),
    World("40 policies of many, some harder", 1.0, 0.5, 40),
    World("40 policies of many, very unlike", 1.0, 1.0, 40),
)


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Share of evaluations whose interval held the truth, and how wide intervals were."""

    world: World
    resampled: tuple[str, ...]
    share: float
    width: float


def coverage(world: World, resampled: Sequence[str], evaluations: int, seed: int = 0) -> Coverage:
    """Accuracy's interval over so many evaluations of `SCENES` scenes."""
    rng = np.random.default_rng(seed)
    cells = _cells(world, rng)
    held, widths = 0, []
    for number in range(evaluations):
        scene = rng.normal(0, world.scene_effect, SCENES)
        policy = rng.normal(0, world.policy_effect, world.num_policies)
        truth = true_accuracy(world, policy)
        chance = correct_share(MEAN + scene[cells.cluster] + policy[cells.policy])
        right = rng.random(len(chance)) < chance
        # All is gold safe: right where it is not called unsafe.
        run = dataclasses.replace(cells, unsafe=~right, right=right)
        found = interval(METRICS["accuracy"], {0: run}, draws=DRAWS, seed=number,
                         resample=tuple(resampled))
        held += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    return Coverage(world, tuple(resampled), held / evaluations, float(np.mean(widths)))


def _cells(world: World, rng: np.random.Generator) -> Cells:
    """Which policies each scene is judged under, as arrays; verdicts are put in later."""
    per_scene = min(PER_SCENE, world.num_policies)
    rows = [Prediction("m", "v", 0, "test", f"{scene}/{policy}", "judge", f"s{scene:03}",
                       policy_id=f"p{policy:02}", label="safe", outcome="safe")
            for scene in range(SCENES)
            for policy in rng.choice(world.num_policies, per_scene, replace=False)]
    return tabulate(rows)


def true_accuracy(world: World, policy: np.ndarray) -> float:
    """The mean over scenes (and policies) of the chance to be right, by Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    scene = world.scene_effect * nodes
    if world.fixed_policies:
        chance = correct_share(MEAN + scene[:, None] + policy)
        return float((weights @ chance).mean() / weights.sum())
    both = correct_share(MEAN + scene[:, None] + world.policy_effect * nodes)
    return float(weights @ both @ weights / weights.sum() ** 2)


def correct_share(logit: np.ndarray) -> np.ndarray:
    """The chance to be right, of its logit."""
    return 1 / (1 + np.exp(-logit))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--evaluations", type=int, default=2000, metavar="N")
    evaluations = parser.parse_args().evaluations
    print(f"| policies | resampled | holds the truth, of {evaluations:,} | mean width, points |")
    print("|---|---|---:|---:|")
    for world in WORLDS:
        for resampled in (IMAGES_ONLY, CROSSED):
            found = coverage(world, resampled, evaluations)
            print(f"| {world.title} | {' and '.join(resampled)} | {100 * found.share:.1f} % | "
                  f"{100 * found.width:.1f} |", flush=True)


if __name__ == "__main__":
    main()
