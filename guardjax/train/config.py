"""The schema of a run: what a config file may say, what each field means, what is the default.

A config file returns an `ml_collections.ConfigDict` that names only what differs from the
defaults; `resolve` turns it into a frozen `RunConfig`, in which every value is explicit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections

from guardjax.data.datasets.names import FORMATS
from guardjax.models.config import Remat
from guardjax.rl.truncation import Truncation
from guardjax.train import typed_config
from guardjax.train.presets import PRESETS
from guardjax.train.typed_config import ConfigError, digest, to_text

__all__ = [
    "CheckpointConfig", "ConfigError", "DatasetConfig", "GuardConfig", "HingeConfig", "LogConfig", "LoraConfig",
    "MemoryConfig", "MeshConfig", "OptimConfig", "RLConfig", "RunConfig", "StageConfig",
    "WorldConfig", "digest", "resolve", "to_text",
]

LABELLED = ("judge", "read")
EXAMPLE_KINDS = ("judge", "caption", "question", "quiz", "habit", "read", "study", "retell", "ask")


# Stands before the classes: their default values are built, and checked, while this is read.
def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """The policy world that the run trains and is measured on.

    Sizes count edited pairs, as `guardjax data build --size` does: 4,096 pairs are 8,192 pictures.
    """

    sizes: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"train": 4096, "dev": 256, "test": 512})  # edited pairs a split
    seed: int = 0                       # every pair follows from it

    def __post_init__(self) -> None:
        _require(all(n >= 0 for n in self.sizes.values()), "sizes must not be negative")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Annotated pictures in a local folder, which take the place of the policy world."""

    format: str = ""                    # a reader, see `data/datasets/names.py`; empty: the world
    dir: str = ""                       # the data set as the hub lays it out
    split: str = "train"                # what is trained on
    policy: str = ""                    # YAML file, where rows have no policy of their own
    missing: Literal["refuse", "drop"] = "refuse"   # rows whose picture is not there
    flips: float = 0.5                  # of pairs: one picture with two labels, where there are any
    exceptions: float = 0.0             # of pairs: one picture under two of LlavaGuard's exceptions
    report: str = ""                    # split that base and trained model are measured on at the
                                        # end, into OUT/report.html; empty: none

    def __post_init__(self) -> None:
        if not self.format:
            usual = {field.name: field.default for field in dataclasses.fields(self)}
            given = [name for name, value in usual.items() if getattr(self, name) != value]
            _require(not given, f"{', '.join(given)} without a format, which names the reader: one "
                                f"of {', '.join(FORMATS)}")
            return
        _require(self.format in FORMATS,
                 typed_config.unknown_name("dataset format", self.format, FORMATS))
        _require(bool(self.dir), f"dir must name the folder of {self.format!r}")
        _require(self.flips >= 0 and self.exceptions >= 0 and self.flips + self.exceptions <= 1,
                 f"flips={self.flips} and exceptions={self.exceptions} are shares of all pairs: "
                 "neither may be negative, nor their sum above 1")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = 1e-3                    # peak learning rate
    schedule: Literal["cosine", "constant", "linear"] = "cosine"  # after warm-up; ends at 0
    warmup_steps: int = 0               # linear from 0 to lr
    weight_decay: float = 0.0           # not on biases, norms and embeddings
    clip_norm: float = 1.0              # global gradient norm; 0 does not clip
    b1: float = 0.9                     # decay of the first moment
    b2: float = 0.95                    # decay of the second moment

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"lr must be positive, got {self.lr}")
        _require(self.warmup_steps >= 0, f"warmup_steps must be >= 0, got {self.warmup_steps}")
        _require(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        _require(self.clip_norm >= 0, f"clip_norm must be >= 0, got {self.clip_norm}")
        for name in ("b1", "b2"):
            beta = getattr(self, name)
            _require(0 <= beta < 1, f"{name} must be in [0, 1), got {beta}")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters; rank 0 trains the parameters themselves."""

    rank: int = 0
    alpha: float = 16.0                 # adapters are scaled by alpha / rank
    targets: tuple[str, ...] = (        # names or patterns of modules, see `lora.target_kernels`
        "model/.*/self_attn/[qkvo]_proj", "model/.*/mlp/(gate|up|down)_proj")
    base: Literal["whole", "nf4"] = "whole"  # frozen decoder layers: as they are, or in four bits

    def __post_init__(self) -> None:
        _require(self.rank >= 0, f"rank must be >= 0, got {self.rank}")
        _require(self.alpha > 0, f"alpha must be positive, got {self.alpha}; for no adapters set "
                                 "rank to 0")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(self.rank > 0 or value == field.default,
                     f"{field.name}={value!r} is for adapters, and rank is 0: set rank, or leave "
                     f"{field.name} out")
        _require(bool(self.targets), "targets must name a module; for no adapters set rank to 0")
        for target in self.targets:
            try:
                re.compile(f"(?:{target})")     # as a part, which is how it will stand
            except re.error as error:
                raise ValueError(
                    f"targets: {target!r} is no regular expression: {error}") from error


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
        _require(self.preset in PRESETS,
                 typed_config.unknown_name("rl.preset", self.preset, PRESETS))
        choices = PRESETS[self.preset]
        for name, value in choices.items():
            if getattr(self, name) is _BY_PRESET:
                object.__setattr__(self, name, value)
        unlike = tuple(name for name, value in choices.items() if getattr(self, name) != value)
        object.__setattr__(self, "unlike", unlike)
        _require(self.group_size >= 2, f"group_size must be >= 2, got {self.group_size}")
        _require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        _require(self.max_tokens >= 1, f"max_tokens must be >= 1, got {self.max_tokens}")
        _require(self.slots >= 0, f"slots must be >= 0, got {self.slots}; 0 decodes all together")
        _require(self.logp_gap_limit >= 0,
                 f"logp_gap_limit must be >= 0, got {self.logp_gap_limit}; 0 goes by dtype")
        _require(all(self.stop), f"stop has an empty text, got {list(self.stop)}: leave it out")
        _require(not self.truncation or self.correction != "none",
                 f"{self.truncation} samples from another distribution than the one that is "
                 "trained: set correction to 'token' or 'sequence', or leave top_k, top_p and "
                 "min_p at their defaults")
        self._check_engine()
        _require(self.kl_coef >= 0, f"kl_coef must be >= 0, got {self.kl_coef}")
        _require(not self.kl_coef or (self.kl, self.kl_in) != ("k1", "loss"),
                 "kl='k1' in the loss has a gradient of zero in expectation: set kl_in to "
                 "'reward', or kl to 'k2' or 'k3'")
        _require(0 < self.clip_low <= 1, f"clip_low must be in (0, 1], got {self.clip_low}")
        _require(self.clip_high > 0, f"clip_high must be positive, got {self.clip_high}")
        _require(self.anchor_coef >= 0, f"anchor_coef must be >= 0, got {self.anchor_coef}")
        _require(self.correction_cap > 0,
                 f"correction_cap must be positive, got {self.correction_cap}")
        _require(self.reward_seconds >= 0,
                 f"reward_seconds must be >= 0, got {self.reward_seconds}")
        _require(0 < self.overlong_buffer <= 1,
                 f"overlong_buffer is a share of max_tokens in (0, 1], got {self.overlong_buffer}")
        for name in ("dynamic_rounds", "epochs", "minibatches", "micro_batches"):
            _require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")

    def _check_engine(self) -> None:
        """That an engine is told where it is, and asked for nothing that it cannot do."""
        if self.engine == "local":
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                _require(not field.name.startswith("engine_") or value == field.default,
                         f"{field.name}={value!r} is for an engine, and engine is 'local': set "
                         f"engine to 'vllm' or 'sglang', or leave {field.name} out")
            return
        _require(re.fullmatch(r"https?://[^/?#\s]+/?", self.engine_url) is not None,
                 f"engine={self.engine!r} needs engine_url as http://host:port, got "
                 f"{self.engine_url!r}")
        _require(not self.truncation,
                 f"{self.truncation} is for engine='local': engine={self.engine!r} tells one "
                 "log-probability a token, and truncation needs two; leave top_k, top_p and min_p "
                 "at their defaults")
        _require(not self.slots, f"slots={self.slots} is for engine='local', and engine="
                                 f"{self.engine!r} schedules by itself: set it to 0")
        _require(self.correction != "none",
                 f"engine={self.engine!r} rounds otherwise than training does: set correction to "
                 "'token' or 'sequence', or engine to 'local'")
        _require(self.engine_seconds > 0,
                 f"engine_seconds must be positive, got {self.engine_seconds}")
        _require(self.engine_retry_seconds >= 0,
                 f"engine_retry_seconds must be >= 0, got {self.engine_retry_seconds}")
        _require(self.engine_requests >= 1,
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
            _require(value >= 0, f"{field.name} must be >= 0, got {value}")


def _default(field: dataclasses.Field) -> Any:
    return (field.default if field.default_factory is dataclasses.MISSING
            else field.default_factory())


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of training."""

    kind: Literal["sight", "sft", "bp_adapt", "grpo", "exact"]
    steps: int                          # batches; each is `rl.updates` optimiser updates
    name: str = ""                      # prefix of its metrics; empty means the kind
    batch: int = 32                     # B, prompts a step over all devices
    optim: OptimConfig = OptimConfig()
    data: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"judge": 1.0})  # example kind -> weight in the mixture
    plain_share: float = 0.0            # of varied policies that hold plain bans only
    spell_share: float = 0.0            # of scenes in words that are spelled like image tokens
    policies: str = "varied"            # "varied" (one a prompt), a level "L3" or a YAML file
    house: str = ""                     # YAML file of the policy that kind "habit" is judged by
    closeness: float = 0.0              # pull of image tokens to their words; "sight"
    freeze: tuple[str, ...] = ()        # parameter groups that stay as they are, e.g. "visual"
    lora: LoraConfig = LoraConfig()
    seed: int = 0                       # folded into the run's seed
    think: bool = False                 # answers hold a rationale before the verdict
    policies_per_image: int = 1         # M; the prompts of M policies branch from one picture
    feature_cache: bool = False         # keep features of a frozen tower on disk; "grpo"
    rl: RLConfig = RLConfig()
    hinge: HingeConfig = HingeConfig()

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        _require(self.steps >= 0, f"steps must be >= 0, got {self.steps}")
        _require(self.batch >= 1, f"batch must be >= 1, got {self.batch}")
        for share in ("plain_share", "spell_share"):
            value = getattr(self, share)
            _require(0 <= value <= 1, f"{share} must be in [0, 1], got {value}")
        _require(not self.plain_share or self.policies == "varied",
                 f"plain_share={self.plain_share} chooses among varied policies, and "
                 f"policies={self.policies!r}; set it to 0")
        _require(self.closeness >= 0, f"closeness must be >= 0, got {self.closeness}")
        self._check_unread()
        for kind, weight in self.data.items():
            _require(kind in EXAMPLE_KINDS, typed_config.unknown_name(
                "example kind in data", kind, EXAMPLE_KINDS))
            _require(weight >= 0, f"data.{kind} must be >= 0, got {weight}")
        _require(any(self.data.values()), "data has no positive weight")
        _require(bool(self.house) == bool(self.data.get("habit")),
                 f"data.habit={self.data.get('habit', 0)} and house={self.house!r}: a habit needs "
                 "a house policy's YAML file, and nothing else does")
        parts = self.rl.minibatches * self.rl.micro_batches
        _require(self.kind != "grpo" or self.batch % parts == 0,
                 f"batch={self.batch} prompts do not divide into rl.minibatches="
                 f"{self.rl.minibatches} times rl.micro_batches={self.rl.micro_batches} parts of "
                 "whole groups")
        answers = self.batch * self.rl.group_size
        _require(self.kind != "grpo" or self.rl.slots <= answers,
                 f"rl.slots={self.rl.slots} do not fit: batch={self.batch} prompts of "
                 f"rl.group_size={self.rl.group_size} have {answers} completions; set it to at "
                 "most that, or to 0 to decode all together")
        self._check_anchors()
        self._check_pictures()

    def _check_pictures(self) -> None:
        """That pictures under many policies, and features kept, go with the rest."""
        many = self.policies_per_image
        _require(many == 1 or (many > 1 and many % 2 == 0),
                 f"policies_per_image must be 1 or even, got {many}: half of them flag the picture")
        if many > 1:
            parts = 2 * self.rl.minibatches * self.rl.micro_batches
            whole = many * (parts if self.kind == "grpo" else 2)
            _require(self.batch % whole == 0,
                     f"batch={self.batch} does not divide by {whole}, which is policies_per_image="
                     f"{many} times two pictures (both of an edited pair) in every part of an "
                     "update (rl.minibatches, rl.micro_batches)")
            _require(self.policies == "varied",
                     f"policies_per_image={many} shows a picture policies that disagree, and "
                     f"policies={self.policies!r} is one: set it to 1")
            _require(not self.rl.dynamic_sampling,
                     f"policies_per_image={many} goes through the model a picture at a time, and "
                     "rl.dynamic_sampling chooses prompt by prompt: set one of them off")
            _require(self.rl.engine == "local",
                     f"policies_per_image={many} shares a picture within this model, and "
                     f"rl.engine={self.rl.engine!r} takes prompts one by one: set it to 1")
        _require(not self.feature_cache or "visual" in self.freeze,
                 "feature_cache keeps what a frozen tower gives, and freeze does not name "
                 "'visual': add it, or set feature_cache to false")

    def _check_unread(self) -> None:
        """That nothing is set that this kind of stage does not read."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        usual = RLConfig()
        found = [(name, getattr(self, name), _default(fields[name]))
                 for name in _UNREAD[self.kind]]
        found += [(f"rl.{name}", getattr(self.rl, name), getattr(usual, name))
                  for name in _UNREAD_RL[self.kind]]
        for name, value, default in found:
            _require(value == default, f"{name}={value!r} is not for kind {self.kind!r}, which "
                                       "does not read it: leave it out")

    def _check_anchors(self) -> None:
        """That prompts without a label and `rl.anchor_coef` stand together, or neither does."""
        coef = self.rl.anchor_coef
        if self.kind not in ("grpo", "exact"):
            return
        anchors = [kind for kind, weight in self.data.items() if weight and kind not in LABELLED]
        _require(bool(anchors) == bool(coef),
                 f"rl.anchor_coef={coef} and data has "
                 f"{', '.join(anchors) or 'labelled prompts only'}: prompts without a label are "
                 "held to the reference, by rl.anchor_coef > 0; "
                 f"without them ({', '.join(LABELLED)} only) set it to 0")
        _require("habit" not in anchors, "data.habit: prompts that are judged by the house's "
                 "policy cannot be held to the reference, which judges by it: leave it out")
        _require(any(self.data.get(kind) for kind in LABELLED),
                 f"data has no labelled prompts ({', '.join(LABELLED)}): nothing is rewarded")
        _require(not (anchors and self.rl.dynamic_sampling),
                 "rl.dynamic_sampling replaces prompts without signal, and those without a label "
                 f"never have any: leave {', '.join(anchors)} out of data, or set it to false")


# Fields that a kind of stage does not read; setting one is an error, not a wish unheard.
_NOT_SIGHT = ("data", "policies", "plain_share", "spell_share", "freeze", "policies_per_image")
_UNREAD: Mapping[str, Sequence[str]] = {
    "sight": (*_NOT_SIGHT, "think", "feature_cache", "hinge"),
    "sft": ("closeness", "feature_cache", "hinge"),
    "bp_adapt": ("closeness", "think", "data", "policies", "spell_share", "policies_per_image",
                 "feature_cache"),
    "grpo": ("closeness", "think", "hinge"),
    "exact": ("closeness", "think", "feature_cache", "hinge")}
_ALL_RL = tuple(field.name for field in dataclasses.fields(RLConfig) if field.name != "unlike")
_EXACT_RL = ("reward", "reward_seconds", "temperature")
_UNREAD_RL: Mapping[str, Sequence[str]] = {
    "sight": _ALL_RL, "sft": _ALL_RL, "bp_adapt": _ALL_RL, "grpo": (),
    "exact": tuple(name for name in _ALL_RL if name not in _EXACT_RL)}


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the state is kept."""

    every_steps: int = 100              # also at the end of a stage and on SIGTERM
    keep: int = 2                       # newest so many are kept
    best_metric: str = ""               # of the last stage; its best are kept beside the newest
    best_mode: Literal["max", "min"] = "max"    # which values are better
    best_keep: int = 1                  # best so many are kept

    def __post_init__(self) -> None:
        _require(self.every_steps >= 1, f"every_steps must be >= 1, got {self.every_steps}")
        for name in ("keep", "best_keep"):
            _require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        _require(bool(self.best_metric) or (self.best_mode, self.best_keep) == ("max", 1),
                 f"best_mode={self.best_mode!r} and best_keep={self.best_keep} are for a "
                 "best_metric, and none is named: name one, or leave them out")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is written and shown."""

    every_steps: int = 10               # one line of metrics, reduced over these steps
    table_every_steps: int = 50         # one table of sampled answers; 0 shows none
    groups_every_steps: int = 10        # whole groups into groups.jsonl, also at the end of a
                                        # stage, at most 64 KiB a step; 0 keeps none
    peak_flops: float = 0.0             # of one device a second, for MFU; 0: the published figure
    tensorboard: bool = False           # event files in the run's folder
    wandb_project: str = ""             # Weights & Biases; empty: none
    wandb_mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        _require(self.every_steps >= 1, f"every_steps must be >= 1, got {self.every_steps}")
        _require(self.table_every_steps >= 0,
                 f"table_every_steps must be >= 0, got {self.table_every_steps}")
        _require(self.groups_every_steps >= 0,
                 f"groups_every_steps must be >= 0, got {self.groups_every_steps}")
        _require(self.peak_flops >= 0, f"peak_flops must be >= 0, got {self.peak_flops}")
        _require(bool(self.wandb_project) or self.wandb_mode == "online",
                 f"wandb_mode={self.wandb_mode!r} is for a wandb_project, and none is named")


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """When a run that yields no finite numbers gives up, and one that hangs."""

    max_bad_steps: int = 10             # consecutive skipped steps
    hang_seconds: float = 900.0         # without a finished step: say where it stands; 0 never
    hang_exit_seconds: float = 3600.0   # without a finished step: end with status 75; 0 never

    def __post_init__(self) -> None:
        _require(self.max_bad_steps >= 1, f"max_bad_steps must be >= 1, got {self.max_bad_steps}")
        for name in ("hang_seconds", "hang_exit_seconds"):
            _require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}")
        _require(not self.hang_exit_seconds or self.hang_seconds <= self.hang_exit_seconds,
                 f"hang_seconds={self.hang_seconds:g} is more than hang_exit_seconds="
                 f"{self.hang_exit_seconds:g}: the run would end before it says where it hangs")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices as a grid; at most one size may be -1, which takes all that are left."""

    data: int = 1                       # replicas of the parameters, B is split over them
    fsdp: int = 1                       # parameters and B are split over these
    tensor: int = 1                     # width of layers is split over these
    rules: Literal["single", "data_parallel", "fsdp", "fsdp_tensor"] = "single"  # see `sharding.RULE_SETS`

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        _require(all(n >= 1 or n == -1 for n in sizes) and sizes.count(-1) <= 1,
                 f"sizes must be positive, with at most one -1, got {sizes}")


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """What a model is compiled to: less memory and smaller programs, or speed when it is small."""

    scan_layers: bool = False           # one compiled layer over stacked parameters
    remat: Remat = "none"               # what the backward pass computes again, see `models.remat`


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run: stages in order."""

    name: str                           # names the run's folder
    stages: tuple[StageConfig, ...]
    seed: int = 0                       # every random choice of the run follows from it
    base: str = "base"                  # "base" is the shipped model; else a model folder
    dtype: Literal["float32", "bfloat16"] = "float32"  # of computing; parameters stay float32
    attention: Literal["auto", "xla", "cudnn", "splash"] = "xla"  # see `models.attention`
    template: Literal["image_first", "policy_first"] = "image_first"  # what a prompt begins with
    world: WorldConfig = WorldConfig()
    dataset: DatasetConfig = DatasetConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()

    def __post_init__(self) -> None:
        _require(bool(self.name), "name must not be empty")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(not twice, f"stages need different names, repeated: {', '.join(twice)}")
        if self.dataset.format:
            for stage in self.stages:
                _check_over_dataset(stage)
        for stage in self.stages:
            _require(stage.policies_per_image == 1 or self.template == "image_first",
                     f"stage {stage.name!r}: policies_per_image={stage.policies_per_image} "
                     f"branches after the picture, and template={self.template!r} begins with the "
                     "policy: set one of them to its default")
            _require(not stage.rl.slots or self.mesh.rules == "single",
                     f"stage {stage.name!r}: rl.slots={stage.rl.slots} takes prompts from the "
                     f"whole batch, which mesh.rules={self.mesh.rules!r} spreads over devices: set "
                     "it to 0")


def _check_over_dataset(stage: StageConfig) -> None:
    """That a stage asks for what annotated pictures can give: verdicts under their policies."""
    where = f"stage {stage.name!r} over a dataset"
    _require(stage.kind in ("sft", "grpo"), f"{where} is of kind sft or grpo, not {stage.kind!r}")
    kinds = [kind for kind, weight in stage.data.items() if weight]
    _require(kinds == ["judge"], f"{where} has prompts of kind judge only, not {', '.join(kinds)}")
    for name in ("policies", "plain_share", "spell_share"):
        default = next(f.default for f in dataclasses.fields(stage) if f.name == name)
        _require(getattr(stage, name) == default,
                 f"{where}: {name}={getattr(stage, name)!r} chooses policies of the world; leave "
                 "it out: rows have their policies, or dataset.policy gives one")


def resolve(config: ml_collections.ConfigDict | Mapping[str, Any],
            overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the config with every default filled in, after the command line's `key=value`s.

    Overrides look like `stages.0.optim.lr=3e-4`;
    a leading `--config.` or `--` is accepted. Values are parsed by the field's type: text as it
    stands, tuples as `a,b` or JSON, mappings as JSON or one key at a time
    (`stages.0.data.caption=0.2`).

    Raises:
      ConfigError: for an unknown or missing key, a value of the wrong type or out of range.
    """
    tree = typed_config.to_tree(config)
    for override in overrides:
        tree = typed_config.apply_override(RunConfig, tree, override)
    return typed_config.build(RunConfig, tree)
