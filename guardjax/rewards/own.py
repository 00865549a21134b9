"""Rewards of a person's own, by the place where they are: `FILE.py:NAME` or `MODULE:NAME`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import sys
from types import ModuleType
from typing import Any

from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.reward import Reward
from guardjax.rewards.trl import from_trl

FORMS = ("(examples, completions) -> (values, applies), see guardjax.rewards.Reward, or TRL's "
         "(completions, **columns) -> list of numbers")


def own_reward(reference: str) -> Composition:
    """The `Composition` or function of that name, in a file or an installed module.

    A function whose first argument is `examples` is a `Reward`; any other with an argument
    `completions` is in TRL's convention (`from_trl`).

    Raises:
      ValueError: there is no such file, module or name, its code fails, or it is no reward.
    """
    place, _, name = reference.rpartition(":")
    module = _loaded(place)
    if not hasattr(module, name):
        known = [each for each, value in vars(module).items()
                 if callable(value) and getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"reward {reference!r}: {place} has no {name!r}; it has "
                         f"{', '.join(known) or 'no functions'}")
    found = getattr(module, name)
    if isinstance(found, Composition):
        return found
    try:
        return Composition((Part(getattr(found, "__name__", name), as_reward(found)),))
    except ValueError as error:
        raise ValueError(f"reward {reference!r}: {error}") from error


def as_reward(function: Any) -> Reward:
    """A function in either convention, as a `Reward`.

    Raises:
      ValueError: it is in neither.
    """
    if not callable(function):
        raise ValueError(f"{type(function).__name__} is no function; a reward is {FORMS}")
    # A wrapper's own arguments: `per_row` makes a reward of a function with others.
    outer = list(inspect.signature(function, follow_wrapped=False).parameters)
    if outer[:2] == ["examples", "completions"] and not inspect.iscoroutinefunction(function):
        return function
    names = list(inspect.signature(function).parameters)
    if "completions" in names:
        return from_trl(function)
    raise ValueError(f"it takes ({', '.join(names)}); a reward is {FORMS}")


def _loaded(place: str) -> ModuleType:
    file = pathlib.Path(place)
    if file.suffix == ".py" and not file.is_file():
        raise ValueError(f"reward file {place} does not exist")
    try:
        if file.suffix != ".py":
            return importlib.import_module(place)
        # Among the modules under a name of its own: dataclasses and pickle look there.
        spec = importlib.util.spec_from_file_location(f"own_reward_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        raise ValueError(f"reward file {place}: {type(error).__name__}: {error}") from error
