"""Where our losses and TRL's meet: the tensors, and each case in the words of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

BATCH, GROUP, TOKENS = 3, 4, 6
LIMIT, BUFFER = TOKENS, 4     # of the overlong penalty
CAP = 1.1                     # of the importance weights: small, so that it cuts


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss in both."""

    preset: str                                     # of `RLConfig`
    trl: Mapping[str, Any]                          # what TRL's trainer is told
    ours: Mapping[str, Any] = dataclasses.field(default_factory=dict)   # fields over the preset
    drift: float = 0.3                              # log-ratio, standard deviation
    on_policy: bool = False                         # no old log-probabilities


_GRPO = {"loss_type": "grpo", "beta": 0.04, "epsilon": 0.2, "epsilon_high": 0.2}
_DAPO = {"loss_type": "dapo", "beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28}
_GSPO = {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.0,
         "epsilon": 3e-4, "epsilon_high": 4e-4}

CASES = {
    "grpo": Case("grpo", _GRPO),
    "grpo_once": Case("grpo", _GRPO, on_policy=True),
    "dapo": Case("dapo", _DAPO),
    "dr_grpo": Case("dr_grpo", {"loss_type": "dr_grpo", "beta": 0.0, "epsilon": 0.2,
                                "epsilon_high": 0.2, "scale_rewards": "none"}),
    "gspo": Case("gspo", _GSPO, drift=1e-3),
    "gspo_wide": Case("gspo", _GSPO | {"epsilon": 0.1, "epsilon_high": 0.2, "beta": 0.1},
                      {"clip_low": 0.1, "clip_high": 0.2, "kl_coef": 0.1}),
    "cispo": Case("cispo", {"loss_type": "cispo", "beta": 0.0, "epsilon": 0.2,
                            "epsilon_high": 5.0}, drift=1.5),
    "rloo": Case("rloo", {"loss_type": "rloo", "beta": 0.05, "epsilon": 0.2,
                          "epsilon_high": 0.2}, drift=0.1),
    # Choices beside the presets.
    "batch_std": Case("dapo", _DAPO | {"scale_rewards": "batch"},
                      {"advantage_scale": "batch_std"}),
    "entropy": Case("dapo", _DAPO | {"entropy_coef": 0.1}, {"entropy_coef": 0.1}),
    "token_weights": Case("grpo", _GRPO | {"correction": "token_truncate"},
                          {"correction": "token", "correction_cap": CAP}),
    "sequence_weights": Case("dapo", _DAPO | {"correction": "sequence_truncate"},
                             {"correction": "sequence", "correction_cap": CAP}),
    "cut_left_out": Case("dapo", _DAPO | {"mask_truncated_completions": True},
                         {"overlong": "filter"}),
}


def make_inputs() -> dict[str, np.ndarray]:
    """What both sides are given, float64 and [B, G, T] where nothing else is said.

    `noise` times a case's drift is the log-ratio. Answers that were cut are as long as the limit.
    """
    rng = np.random.default_rng(7)
    shape = (BATCH, GROUP, TOKENS)
    length = rng.integers(1, TOKENS + 1, shape[:2])
    length[:, 0] = TOKENS
    logp = -rng.exponential(1.0, shape)
    return {
        "length": length,                                               # [B, G]
        "ended": (length < TOKENS) | (rng.random(shape[:2]) < 0.3),     # [B, G]
        "mask": np.arange(TOKENS) < length[..., None],
        "rewards": rng.normal(size=shape[:2]),                          # [B, G]
        "logp": logp,
        "noise": rng.normal(size=shape),
        "ref_logp": logp + 0.3 * rng.normal(size=shape),
        "sampled_gap": 0.2 * rng.normal(size=shape),                    # old less sampled
        "entropy": rng.exponential(1.0, shape),
    }
