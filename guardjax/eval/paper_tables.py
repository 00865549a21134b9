"""Tables of the papers as far as their numbers are known, and what stands in for each here.

Numbers are in per cent, as printed. A stand-in has the table's shape on the policy world: other
pictures, other policies and a guard of two million parameters. Its numbers are toys, and are shown
beside the paper's only under that name.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from guardjax.eval.matrix import LADDER, METRIC, level_splits
from guardjax.eval.tables import Column
from guardjax.policies import LADDER_LEVELS

SAFEGUARD_VL = "SafeGuard-VL (arXiv 2603.01228)"
POLICY_SHIFT = "PolicyShiftGuard (arXiv 2607.05910)"


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A published table: models by columns, and its stand-in."""

    name: str                                       # for the command line
    title: str
    source: str
    benchmarks: tuple[str, ...]                     # formats that the columns are of
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]    # model -> a number a column, None: not known
    deviations: tuple[str, ...]                     # what a reproduction must know
    stand_in: Mapping[str, str]                     # model -> variant on the policy world
    stand_in_columns: tuple[Column, ...]


def _table(name: str, title: str, source: str, benchmarks: tuple[str, ...],
           columns: tuple[str, ...], rows: dict[str, tuple[float | None, ...]],
           deviations: tuple[str, ...], stand_in: dict[str, str],
           stand_in_columns: tuple[Column, ...]) -> PaperTable:
    return PaperTable(name, title, source, benchmarks, columns, types.MappingProxyType(rows),
                      deviations, types.MappingProxyType(stand_in), stand_in_columns)


_HOUSE_F1 = Column("F1 under the house's policy", level_splits()[2], METRIC)
_LADDER = Column("Ladder macro-F1", LADDER, METRIC)
_RETENTION = Column("Retention", "test", "retention")
_UNSTATED = (None, None, None)
_NO_INTERVALS = "no seeds and no intervals are published"
_OTHER_PROMPTS = "rows of other guards are cited, not run again: their prompts differ"

TABLES: dict[str, PaperTable] = {table.name: table for table in (
    _table(
        "safeguard_vl_table2", "UnsafeBench, F1 by category", SAFEGUARD_VL, ("unsafebench",),
        ("Hate", "Violence", "Self-harm", "Sexual", "Shocking", "Illegal", "Deception",
         "Political", "Spam", "Overall"),
        {"NudeNet": (None, None, None, 62.4, None, None, None, None, None, None),
         "NSFW-Detector": (None, None, None, 73.8, None, None, None, None, None, None),
         "MultiHeaded": (29.2, 42.6, None, 75.7, 74.9, None, None, 60.0, None, None),
         "Qwen2.5-VL-7B": (24.5, 69.1, 55.3, 35.5, 47.2, 37.5, 33.9, 23.3, 23.0, 41.7),
         "LLaVA-v1.6-7B": (25.3, 57.0, 57.9, 41.4, 72.2, 52.1, 54.9, 66.7, 6.5, 52.0),
         "InstructBLIP": (27.0, 61.5, 33.3, 77.7, 69.7, 68.7, 50.6, 66.0, 49.0, 55.9),
         "GLM-4V-9B": (24.9, 59.2, 27.9, 81.9, 66.7, 67.7, 48.1, 72.5, 53.5, 56.5),
         "Llama Guard 3 Vision": (0.0, 13.2, 23.5, 44.6, 34.0, 11.5, 6.8, 25.0, 0.0, 22.7),
         "QwenGuard-7B": (26.3, 50.0, 59.6, 51.2, 74.2, 25.2, 23.0, 12.2, 3.7, 43.6),
         "ShieldGemma 2": (24.1, 57.5, 15.0, 72.9, 43.9, 53.2, 45.2, 61.3, 48.4, 47.3),
         "SafeGuard-VL (SFT)": (33.8, 67.0, 45.4, 87.0, 74.8, 72.9, 61.5, 76.5, 53.1, 67.0),
         "SafeGuard-VL (Full)": (50.6, 70.5, 55.2, 89.0, 79.0, 62.0, 66.7, 74.9, 63.3, 72.2)},
        ("Overall pools all test rows, it is not the mean of the nine",
         "two of eleven categories are not shown: Harassment and Health", _OTHER_PROMPTS,
         _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "SafeGuard-VL (SFT)": "sft_l3"}, (_HOUSE_F1,)),
    _table(
        "safeguard_vl_table3", "Trained on one level, tested on all five", SAFEGUARD_VL,
        ("safeeditbench",), tuple(LADDER_LEVELS), {},
        ("the matrix is not known; the text says that SFT on L1 scores 0 on L2 to L5, and that RL "
         "softens the drop",),
        {f"{title} on {level}": f"{kind}_{level.lower()}"
         for kind, title in (("sft", "SFT"), ("grpo", "RL")) for level in LADDER_LEVELS},
        tuple(Column(level, split, METRIC)
              for level, split in zip(LADDER_LEVELS, level_splits(), strict=True))),
    _table(
        "safeguard_vl_table4", "Safety against general ability", SAFEGUARD_VL,
        ("llavaguard", "unsafebench", "safeeditbench"),
        ("LlavaGuard", "UnsafeBench", "SafeEditBench", "Safety", "MMMU", "RealWorldQA", "BLINK",
         "MMT-Bench", "General"),
        {"Qwen2.5-VL-7B": (57.08, 41.71, 48.68, 49.16, 45.00, 68.50, 54.66, 59.55, 56.92),
         "QwenGuard-7B (SFT)": (84.57, 43.56, 32.76, 53.63, 36.00, 57.00, 12.05, 38.89, 35.98),
         "SafeGuard-VL (RL)": (71.78, 62.39, 45.59, 59.92, 45.33, 68.37, 53.60, 60.76, 57.02)},
        ("84.57 is QwenGuard-7B's policy exception score in its own paper, not an F1",
         "General is the mean of MMMU, RealWorldQA, BLINK and MMT-Bench", _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "QwenGuard-7B (SFT)": "sft_l3", "SafeGuard-VL (RL)": "grpo_l3"},
        (_HOUSE_F1, _LADDER, _RETENTION)),
    _table(
        "safeguard_vl_table5", "Ablation of the stages", SAFEGUARD_VL, ("unsafebench",),
        ("UnsafeBench", "General"),
        {"Qwen2.5-VL-7B": (41.71, 56.92), "SFT without recaption": (53.22, 54.51),
         "SafeGuard-VL (SFT)": (66.96, 53.37), "SafeGuard-VL (Full)": (72.16, 53.09)},
        ("the released script of stage 2 starts from the base, not from stage 1", _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "SFT without recaption": "sft_l3",
         "SafeGuard-VL (Full)": "describe_grpo_varied"}, (_HOUSE_F1, _RETENTION)),
    _table(
        "safeguard_vl_table6", "SafeEditBench, mean F1 over five policies", SAFEGUARD_VL,
        ("safeeditbench",), ("Macro-F1",),
        {"Qwen2.5-VL-7B": (48.68,), "QwenGuard-7B (SFT)": (32.76,),
         "SafeGuard-VL (RL)": (45.59,), "SafeGuard-VL (RL + edited pairs)": (49.43,)},
        ("accuracy at L1, which no picture violates", "601 of 640 rows are there",
         "0.75 points over the base are inside the noise of 601 rows", _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "QwenGuard-7B (SFT)": "sft_l3", "SafeGuard-VL (RL)": "grpo_l3",
         "SafeGuard-VL (RL + edited pairs)": "grpo_varied"}, (_LADDER,)),
    _table(
        "policyshiftguard_main", "PolicyShiftBench, policies of training and held out",
        POLICY_SHIFT, ("policyshiftbench",),
        tuple(f"{part} {metric}" for part in ("Adaptive", "Shift", "Average")
              for metric in ("accuracy", "F1", "PSS")),
        {"Qwen2.5-VL-7B": (54.5, 29.0, 9.5, 50.7, 12.1, 0.0, *_UNSTATED),
         "QwenGuard-7B": (44.6, 39.0, 10.2, 49.9, 39.5, 9.1, *_UNSTATED),
         "PolicyShiftGuard-3B": (86.6, 85.6, 79.0, 61.1, 47.8, 50.5, *_UNSTATED),
         "PolicyShiftGuard-7B": (86.3, 86.8, 73.8, 69.9, 67.0, 70.4, 78.1, 76.9, 72.1)},
        ("its script drops invalid answers; here they are wrong",
         "51 and 41 per cent of QwenGuard-7B's answers are invalid, and were dropped",
         "PSS is by picture and category, as its script has it", _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "PolicyShiftGuard-7B": "sft_varied"},
        tuple(Column(f"{title}, {what}", split, metric)
              for what, split in (("new policies", "test"), ("new shapes", "test_shapes"))
              for title, metric in (("Accuracy", "accuracy"), ("F1", "f1"), ("PSS", "pss")))),
    _table(
        "policyshiftguard_plus", "PolicyShiftBench-PLUS", POLICY_SHIFT, ("policyshiftbench",),
        ("Accuracy", "F1", "PSS"),
        {"Qwen2.5-VL-7B": (54.2, 20.6, 0.0), "Qwen3.5-35B-A3B": (64.6, 56.8, 19.5),
         "Qwen3.5-4B (thinking)": (76.8, 55.5, 22.7), "Llama Guard 4": (52.2, 12.2, 1.1),
         "SafeGuard-VL-RL-7B": (57.3, 45.3, 5.7), "GuardReasoner-VL-7B": (52.3, 55.0, 8.9),
         "PolicyShiftGuard-3B": (70.0, 67.1, 50.4), "PolicyShiftGuard-7B": (76.5, 77.9, 56.2)},
        ("its script drops invalid answers; here they are wrong",
         "each number is the mean of two splits, policies of training and held out",
         "PSS is by picture and category, as its script has it", _NO_INTERVALS),
        {"Qwen2.5-VL-7B": "base", "SafeGuard-VL-RL-7B": "grpo_l3",
         "PolicyShiftGuard-7B": "sft_varied"},
        (Column("Accuracy", "test", "accuracy"), Column("F1", "test", "f1"),
         Column("PSS", "test", "pss"))),
)}
