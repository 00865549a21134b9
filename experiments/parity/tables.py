"""What was measured of a shape, as tables in Markdown, and the bars that it is held to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from guardjax.models.config import ClipConfig, ModelConfig, VisionConfig
from tests.models.parity_errors import GRADIENT_BAR, LOGITS_BAR


@dataclasses.dataclass(frozen=True)
class Result:
    """One shape.

    Attributes:
      logits: input kind -> relative error of the logits in float32.
      gradient, worst_leaf: the largest relative error of a leaf's gradient, and its hub name.
      bf16: of each seed of weights, what `compare_bf16` returns.
    """

    shape: str
    cfg: ModelConfig
    num_parameters: int
    logits: dict[str, float]
    ids_equal: bool
    greedy_equal: bool
    greedy_tokens: int
    gradient: float
    worst_leaf: str
    bf16: list[tuple[float, float, float, float]]

    @property
    def bf16_ratio(self) -> float:
        """Our root mean square error in bf16 over theirs, seeds pooled."""
        ours, theirs, _, _ = np.square(self.bf16).mean(0) ** 0.5
        return float(ours / theirs)


def problems(results: Sequence[Result]) -> list[str]:
    """The bars that are missed, in words."""
    found = []
    for one in results:
        found += [f"{one.shape}: logits of {kind} are {error:.1e} apart"
                  for kind, error in one.logits.items() if not error <= LOGITS_BAR]
        if not one.gradient <= GRADIENT_BAR:
            found.append(f"{one.shape}: gradient of {one.worst_leaf} is {one.gradient:.1e} apart")
        if not one.bf16_ratio <= 1:
            found.append(f"{one.shape}: bf16 is {one.bf16_ratio:.2f} times as far off as theirs")
        if not one.ids_equal:
            found.append(f"{one.shape}: positions differ")
        if not one.greedy_equal:
            found.append(f"{one.shape}: greedy answers differ")
    return found


def render(results: Sequence[Result], made_with: str) -> str:
    """All tables."""
    kinds = list(max((one.logits for one in results), key=len))     # some know no videos
    return "\n".join([
        made_with, "",
        f"Largest difference of the logits over the largest logit, float32 (bar {LOGITS_BAR:.0e}):",
        "", *_table(["shape", *kinds], [
            [one.shape, *(f"{one.logits[kind]:.1e}" if kind in one.logits else "–"
                          for kind in kinds)] for one in results]), "",
        "Gradients of the loss in float32, worst of all leaves "
        f"(bar {GRADIENT_BAR:.0e}), positions and greedy answers:", "",
        *_table(["shape", "gradient", "its leaf", "ids equal", "greedy equal", "greedy tokens"], [
            [one.shape, f"{one.gradient:.1e}", f"`{one.worst_leaf}`", _yes(one.ids_equal),
             _yes(one.greedy_equal), f"{one.greedy_tokens}"] for one in results]), "",
        f"Logits in bf16 against theirs in float32, {len(results[0].bf16)} seeds of weights "
        "(bar: rms ours / theirs at most 1):", "",
        *_table(["shape", "rms ours", "rms theirs", "ours / theirs", "largest ours",
                 "largest theirs"], [_bf16_row(one) for one in results]), "",
        "The shapes:", "",
        *_table(["shape", "head", "width", "query / key heads", "layers", "rotary sections",
                 "vision width", "blocks", "full blocks", "patch / window or picture",
                 "parameters"],
                [_shape_row(one) for one in results]), ""])


def _bf16_row(one: Result) -> list[str]:
    ours, theirs, _, _ = np.square(one.bf16).mean(0) ** 0.5
    _, _, largest, their_largest = np.max(one.bf16, 0)
    return [one.shape, f"{ours:.2e}", f"{theirs:.2e}", f"{one.bf16_ratio:.2f}", f"{largest:.1e}",
            f"{their_largest:.1e}"]


def _shape_row(one: Result) -> list[str]:
    text, vision = one.cfg.text, one.cfg.vision
    return [one.shape, "tied" if one.cfg.tie_word_embeddings else "own", f"{text.hidden_size}",
            f"{text.num_attention_heads} / {text.num_key_value_heads}",
            f"{text.num_hidden_layers}", ", ".join(map(str, text.mrope_section)),
            f"{vision.hidden_size}", f"{vision.depth}", *_tower_cells(vision),
            f"{one.num_parameters:,}"]


def _tower_cells(vision: VisionConfig | ClipConfig) -> list[str]:
    if isinstance(vision, ClipConfig):
        return ["all", f"{vision.patch_size} / {vision.image_size}"]
    return (["all", f"{vision.patch_size} / none"] if vision.window_size is None else
            [", ".join(map(str, vision.fullatt_block_indexes)),
             f"{vision.patch_size} / {vision.window_size}"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
