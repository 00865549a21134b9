"""The trials of a sweep: a config file's `sweep(add)`, resolved before anything is trained.

    def sweep(add):
        for lr in (5e-5, 1e-4, 2e-4):
            for seed in (0, 1):
                add({"stages.0.optim.lr": lr}, seed=seed)

Each `add` is one trial: `get_config()` with those keys changed. Trials that differ in their seed
alone have one name, and one line in the table.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from guardjax.cli.compose import config_module
from guardjax.train.config import ConfigError, RunConfig, resolve

UNCHANGED = "as_it_is"      # the name of a trial that changes nothing but the seed
_NAME_LIMIT = 120           # a folder's name may have 255 bytes


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    name: str                       # of what is changed, without the seed; good as a folder's
    seed: int
    changes: Mapping[str, Any]      # key -> value as the config file gave it, without the seed
    config: RunConfig

    @property
    def place(self) -> str:
        """Its folder in the sweep's, which `--only` takes too."""
        return f"{self.name}/seed{self.seed}"


def load_trials(path: str, overrides: Sequence[str] = ()) -> list[Trial]:
    """All trials of a config file, in its order; the command line's overrides go last.

    Raises:
      ConfigError: the file has no `sweep`, which adds nothing, or the same twice; or a trial has a
        key or value that the config does not take: said of that trial, before any is trained.
    """
    module = config_module(path)
    if not hasattr(module, "sweep"):
        raise ConfigError(f"{path} does not define sweep(add): give it one that calls "
                          'add({"stages.0.optim.lr": 1e-4}, seed=0) for every trial')
    asked: list[dict[str, Any]] = []

    def add(changes: Mapping[str, Any] = MappingProxyType({}), /, **more: Any) -> None:
        asked.append({**changes, **more})

    module.sweep(add)
    if not asked:
        raise ConfigError(f"sweep(add) of {path} adds no trial: call add(...) for each")
    titles = _short_keys({key for changes in asked for key in changes})
    trials, places = [], {}
    for number, changes in enumerate(asked):
        words = [f"{key}={_as_text(value)}" for key, value in changes.items()]
        try:
            config = resolve(module.get_config(), [*words, *overrides])
        except ConfigError as error:
            raise ConfigError(f"trial {number} of {path} ({', '.join(words)}): {error}") from None
        own = {key: value for key, value in changes.items() if key != "seed"}
        trial = Trial(_name({titles[key]: value for key, value in own.items()}), config.seed,
                      own, config)
        if trial.place in places:
            raise ConfigError(f"trials {places[trial.place]} and {number} of {path} are both "
                              f"{trial.place}: each must change something of its own")
        places[trial.place] = number
        trials.append(trial)
    return trials


def _short_keys(keys: set[str]) -> dict[str, str]:
    """Key -> its fewest last parts that no other key ends with: "stages.0.optim.lr" -> "lr"."""
    def tail(key: str, length: int) -> str:
        return ".".join(key.split(".")[-length:])

    return {key: next(tail(key, length) for length in range(1, key.count(".") + 2)
                      if not any(other != key and tail(other, length) == tail(key, length)
                                 for other in keys) or length == key.count(".") + 1)
            for key in keys}


def _name(changes: Mapping[str, Any]) -> str:
    text = ",".join(f"{key}={_as_text(value)}" for key, value in changes.items()) or UNCHANGED
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if len(name) > _NAME_LIMIT:
        raise ConfigError(f"the trial {name[:60]}… has a name of {len(name)} characters, at most "
                          f"{_NAME_LIMIT}: change fewer keys, or move what all trials share into "
                          "get_config()")
    return name


def _as_text(value: Any) -> str:
    """As an override of the command line is written."""
    return value if isinstance(value, str) else json.dumps(value)
