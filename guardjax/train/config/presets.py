"""Methods by name: the choices of `RLConfig` that a preset fills in where a config gives none.

Numbers are those of the papers, or of the common trainers where the paper has none. With one
update a rollout the ratio is 1: clip and ratio then change nothing, and methods differ by their
advantages, aggregation, penalty and sampling alone.

| preset | source | what it is |
|---|---|---|
| `default` | ours | Dr. GRPO with a small k3 penalty to the model as the stage finds it |
| `grpo` | arXiv 2402.03300 | group mean and deviation, mean over an answer's tokens, k3 |
| `dapo` | 2503.14476 | higher clip above, mean over tokens, dynamic sampling, overlong shaping |
| `dr_grpo` | 2503.20783 | no deviation, constant length as the divisor, no penalty |
| `gspo` | 2507.18071 | the ratio of a whole answer, its length taken out |
| `gspo_token` | 2507.18071, sec. 4.3 | the same value, with a gradient a token |
| `rloo` | 2402.14740 | mean of the others as baseline, k1 in the reward; clip, weight as in TRL |
| `reinforce_pp` | 2501.03262, baseline | centred rewards over their deviation in the batch, k2 |
| `cispo` | 2506.13585 | the clipped ratio as a weight; lower clip off, cap 5 as in 2510.13786 |

Mean over all tokens and the penalty's weight in `reinforce_pp` are our instantiation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEFAULT: dict[str, Any] = {
    "advantage_scale": "none", "baseline": "mean",
    "ratio": "token", "clip_low": 0.2, "clip_high": 0.2, "aggregate": "constant",
    "kl_coef": 0.01, "kl": "k3", "kl_in": "loss",
    "overlong": "none", "dynamic_sampling": False,
}
_GRPO = _DEFAULT | {"advantage_scale": "group_std", "aggregate": "sequence_mean", "kl_coef": 0.04}
_GSPO = _GRPO | {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "kl_coef": 0.0}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": _DEFAULT,
    "grpo": _GRPO,
    "dapo": _GRPO | {"clip_high": 0.28, "aggregate": "token_mean", "kl_coef": 0.0,
                     "overlong": "shape", "dynamic_sampling": True},
    "dr_grpo": _DEFAULT | {"kl_coef": 0.0},
    "gspo": _GSPO,
    "gspo_token": _GSPO | {"ratio": "sequence_token"},
    "rloo": _DEFAULT | {"baseline": "leave_one_out", "ratio": "answer",
                        "aggregate": "sequence_mean", "kl_coef": 0.05, "kl": "k1",
                        "kl_in": "reward"},
    "reinforce_pp": _DEFAULT | {"advantage_scale": "centred_std", "aggregate": "token_mean",
                                "kl_coef": 0.01, "kl": "k2"},
    "cispo": _GRPO | {"ratio": "stop_gradient", "clip_low": 1.0, "clip_high": 4.0,
                      "aggregate": "token_mean", "kl_coef": 0.0},
}
