"""One stage of a run: its kind, its data, and what each kind does not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from guardjax.train.config.optim import LoraConfig, OptimConfig
from guardjax.train.config.rl import HingeConfig, RLConfig
from guardjax.train.config.typed import require, unknown_name

LABELLED = ("judge", "read")
EXAMPLE_KINDS = ("judge", "caption", "question", "quiz", "habit", "read", "study", "retell", "ask")


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
        require(self.steps >= 0, f"steps must be >= 0, got {self.steps}")
        require(self.batch >= 1, f"batch must be >= 1, got {self.batch}")
        for share in ("plain_share", "spell_share"):
            value = getattr(self, share)
            require(0 <= value <= 1, f"{share} must be in [0, 1], got {value}")
        require(not self.plain_share or self.policies == "varied",
                f"plain_share={self.plain_share} chooses among varied policies, and "
                f"policies={self.policies!r}; set it to 0")
        require(self.closeness >= 0, f"closeness must be >= 0, got {self.closeness}")
        self._check_unread()
        for kind, weight in self.data.items():
            require(kind in EXAMPLE_KINDS, unknown_name(
                "example kind in data", kind, EXAMPLE_KINDS))
            require(weight >= 0, f"data.{kind} must be >= 0, got {weight}")
        require(any(self.data.values()), "data has no positive weight")
        require(bool(self.house) == bool(self.data.get("habit")),
                f"data.habit={self.data.get('habit', 0)} and house={self.house!r}: a habit needs "
                "a house policy's YAML file, and nothing else does")
        parts = self.rl.minibatches * self.rl.micro_batches
        require(self.kind != "grpo" or self.batch % parts == 0,
                f"batch={self.batch} prompts do not divide into rl.minibatches="
                f"{self.rl.minibatches} times rl.micro_batches={self.rl.micro_batches} parts of "
                "whole groups")
        answers = self.batch * self.rl.group_size
        require(self.kind != "grpo" or self.rl.slots <= answers,
                f"rl.slots={self.rl.slots} do not fit: batch={self.batch} prompts of "
                f"rl.group_size={self.rl.group_size} have {answers} completions; set it to at "
                "most that, or to 0 to decode all together")
        self._check_anchors()
        self._check_pictures()

    def _check_pictures(self) -> None:
        """That pictures under many policies, and features kept, go with the rest."""
        many = self.policies_per_image
        require(many == 1 or (many > 1 and many % 2 == 0),
                f"policies_per_image must be 1 or even, got {many}: half of them flag the picture")
        if many > 1:
            parts = 2 * self.rl.minibatches * self.rl.micro_batches
            whole = many * (parts if self.kind == "grpo" else 2)
            require(self.batch % whole == 0,
                    f"batch={self.batch} does not divide by {whole}, which is policies_per_image="
                    f"{many} times two pictures (both of an edited pair) in every part of an "
                    "update (rl.minibatches, rl.micro_batches)")
            require(self.policies == "varied",
                    f"policies_per_image={many} shows a picture policies that disagree, and "
                    f"policies={self.policies!r} is one: set it to 1")
            require(not self.rl.dynamic_sampling,
                    f"policies_per_image={many} goes through the model a picture at a time, and "
                    "rl.dynamic_sampling chooses prompt by prompt: set one of them off")
            require(self.rl.engine == "local",
                    f"policies_per_image={many} shares a picture within this model, and "
                    f"rl.engine={self.rl.engine!r} takes prompts one by one: set it to 1")
        require(not self.feature_cache or "visual" in self.freeze,
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
            require(value == default, f"{name}={value!r} is not for kind {self.kind!r}, which "
                                      "does not read it: leave it out")

    def _check_anchors(self) -> None:
        """That prompts without a label and `rl.anchor_coef` stand together, or neither does."""
        coef = self.rl.anchor_coef
        if self.kind not in ("grpo", "exact"):
            return
        anchors = [kind for kind, weight in self.data.items() if weight and kind not in LABELLED]
        require(bool(anchors) == bool(coef),
                f"rl.anchor_coef={coef} and data has "
                f"{', '.join(anchors) or 'labelled prompts only'}: prompts without a label are "
                "held to the reference, by rl.anchor_coef > 0; "
                f"without them ({', '.join(LABELLED)} only) set it to 0")
        require("habit" not in anchors, "data.habit: prompts that are judged by the house's "
                "policy cannot be held to the reference, which judges by it: leave it out")
        require(any(self.data.get(kind) for kind in LABELLED),
                f"data has no labelled prompts ({', '.join(LABELLED)}): nothing is rewarded")
        require(not (anchors and self.rl.dynamic_sampling),
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
