"""How groups of answers are drawn, rewarded and learnt from, and the hinges of pairs."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

from guardjax.rl.truncation import Truncation
from guardjax.train.config.presets import PRESETS
from guardjax.train.config.typed import require, unknown_name


# Where no value is given, the preset gives one. Never a value itself: a config may not say it.
_BY_PRESET: Any = None


@dataclasses.dataclass(frozen=True)
class RLConfig:
    """Group-relative policy optimisation; read by stage "grpo", a little of it by "exact".

    `preset` fills the fields marked so; a field that is given wins, and is then named in `unlike`.
    """

    preset: Literal["default", "grpo", "dapo", "dr_grpo", "gspo", "gspo_token", "rloo",
                    "reinforce_pp", "cispo"] = "default"    # see `presets.py`
    unlike: tuple[str, ...] = ()        # fields that differ from the preset; always computed
    group_size: int = 8                 # G, completions a prompt
    temperature: float = 1.0            # of sampling and of the loss alike
    top_k: int = 0                      # sample the k likeliest tokens only; 0 all
    top_p: float = 1.0                  # sample the likeliest that together reach p only; 1 all
    min_p: float = 0.0                  # sample those p times as likely as the likeliest; 0 all
    max_tokens: int = 16                # T, a longer completion is cut and marked so
    stop: tuple[str, ...] = ()          # texts that end a completion, token by token
    slots: int = 0                      # completions decoded at a time, see `rl/slots.py`; 0 all
    engine: Literal["local", "vllm", "sglang"] = "local"  # who samples, see `stages/sampler.py`
    engine_url: str = ""                # "http://host:port" of an engine, started with the base
    engine_seconds: float = 300.0       # what one of its answers may take
    engine_retry_seconds: float = 120.0  # how long one that was lost is waited for, each batch
    engine_requests: int = 64           # answers that it is asked for at a time
    logp_gap_limit: float = 0.0         # mean gap of sampled to recomputed log-probabilities that
                                        # stops a run; 0 is 2e-5 in float32, 0.02 in bfloat16,
                                        # and 1e-3 and 0.05 with an engine
    kl_coef: float = _BY_PRESET         # weight of the penalty to the reference
    kl: Literal["k1", "k2", "k3"] = _BY_PRESET      # its estimate
    kl_in: Literal["loss", "reward"] = _BY_PRESET   # where it enters
    anchor_coef: float = 0.0            # k3 on prompts without a label, such as captions
    clip_low: float = _BY_PRESET        # the ratio is clipped to [1 - clip_low, 1 + clip_high]
    clip_high: float = _BY_PRESET
    ratio: Literal["token", "sequence", "sequence_token", "answer",
                   "stop_gradient"] = _BY_PRESET            # see `ratios.policy_ratio`
    baseline: Literal["mean", "leave_one_out"] = _BY_PRESET  # taken off a group's rewards
    advantage_scale: Literal["none", "group_std", "batch_std",
                             "centred_std"] = _BY_PRESET    # divisor of advantages
    aggregate: Literal["sequence_mean", "token_mean", "constant"] = _BY_PRESET  # over tokens
    entropy_coef: float = 0.0           # weight of the entropy bonus
    correction: Literal["none", "token", "sequence"] = "none"  # weights, sampler against trainer
    correction_cap: float = 2.0         # largest of these weights
    overlong: Literal["none", "shape", "filter"] = _BY_PRESET  # penalty, or out of the loss if cut
    overlong_buffer: float = 0.2        # share of max_tokens over which the penalty grows to -1
    reward: str = "gated"               # a composition by name, or one's own: FILE.py:NAME
    reward_seconds: float = 600.0       # what a reward may take; 0: no limit, in the main thread
    dynamic_sampling: bool = _BY_PRESET  # replace prompts whose group has one reward only; "grpo"
    dynamic_rounds: int = 4             # at most so many batches are drawn a step
    epochs: int = 1                     # passes over a rollout
    minibatches: int = 1                # updates a pass, each on batch / minibatches prompts
    micro_batches: int = 1              # parts an update is computed in, one after another

    @property
    def updates(self) -> int:
        """Optimiser updates a step."""
        return self.epochs * self.minibatches

    @property
    def truncation(self) -> Truncation:
        """Which tokens may be sampled."""
        return Truncation(self.top_k, self.top_p, self.min_p)

    def __post_init__(self) -> None:
        require(self.preset in PRESETS,
                unknown_name("rl.preset", self.preset, PRESETS))
        choices = PRESETS[self.preset]
        for name, value in choices.items():
            if getattr(self, name) is _BY_PRESET:
                object.__setattr__(self, name, value)
        unlike = tuple(name for name, value in choices.items() if getattr(self, name) != value)
        object.__setattr__(self, "unlike", unlike)
        require(self.group_size >= 2, f"group_size must be >= 2, got {self.group_size}")
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        require(self.max_tokens >= 1, f"max_tokens must be >= 1, got {self.max_tokens}")
        require(self.slots >= 0, f"slots must be >= 0, got {self.slots}; 0 decodes all together")
        require(self.logp_gap_limit >= 0,
                f"logp_gap_limit must be >= 0, got {self.logp_gap_limit}; 0 goes by dtype")
        require(all(self.stop), f"stop has an empty text, got {list(self.stop)}: leave it out")
        require(not self.truncation or self.correction != "none",
                f"{self.truncation} samples from another distribution than the one that is "
                "trained: set correction to 'token' or 'sequence', or leave top_k, top_p and "
                "min_p at their defaults")
        self._check_engine()
        require(self.kl_coef >= 0, f"kl_coef must be >= 0, got {self.kl_coef}")
        require(not self.kl_coef or (self.kl, self.kl_in) != ("k1", "loss"),
                "kl='k1' in the loss has a gradient of zero in expectation: set kl_in to "
                "'reward', or kl to 'k2' or 'k3'")
        require(0 < self.clip_low <= 1, f"clip_low must be in (0, 1], got {self.clip_low}")
        require(self.clip_high > 0, f"clip_high must be positive, got {self.clip_high}")
        require(self.anchor_coef >= 0, f"anchor_coef must be >= 0, got {self.anchor_coef}")
        require(self.correction_cap > 0,
                f"correction_cap must be positive, got {self.correction_cap}")
        require(self.reward_seconds >= 0,
                f"reward_seconds must be >= 0, got {self.reward_seconds}")
        require(0 < self.overlong_buffer <= 1,
                f"overlong_buffer is a share of max_tokens in (0, 1], got {self.overlong_buffer}")
        for name in ("dynamic_rounds", "epochs", "minibatches", "micro_batches"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")

    def _check_engine(self) -> None:
        """That an engine is told where it is, and asked for nothing that it cannot do."""
        if self.engine == "local":
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                require(not field.name.startswith("engine_") or value == field.default,
                        f"{field.name}={value!r} is for an engine, and engine is 'local': set "
                        f"engine to 'vllm' or 'sglang', or leave {field.name} out")
            return
        require(re.fullmatch(r"https?://[^/?#\s]+/?", self.engine_url) is not None,
                f"engine={self.engine!r} needs engine_url as http://host:port, got "
                f"{self.engine_url!r}")
        require(not self.truncation,
                f"{self.truncation} is for engine='local': engine={self.engine!r} tells one "
                "log-probability a token, and truncation needs two; leave top_k, top_p and min_p "
                "at their defaults")
        require(not self.slots, f"slots={self.slots} is for engine='local', and engine="
                                f"{self.engine!r} schedules by itself: set it to 0")
        require(self.correction != "none",
                f"engine={self.engine!r} rounds otherwise than training does: set correction to "
                "'token' or 'sequence', or engine to 'local'")
        require(self.engine_seconds > 0,
                f"engine_seconds must be positive, got {self.engine_seconds}")
        require(self.engine_retry_seconds >= 0,
                f"engine_retry_seconds must be >= 0, got {self.engine_retry_seconds}")
        require(self.engine_requests >= 1,
                f"engine_requests must be >= 1, got {self.engine_requests}")


@dataclasses.dataclass(frozen=True)
class HingeConfig:
    """Hinge losses on matched pairs, see `rl/pair_hinge.py`; read by stage "bp_adapt"."""

    own_coef: float = 0.1               # weight of the own word above the other one
    pair_coef: float = 0.2              # weight of each word's logit moving with the policy
    margin: float = 0.5                 # of all hinges, in logits

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"{field.name} must be >= 0, got {value}")
