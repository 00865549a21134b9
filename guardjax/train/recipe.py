"""What a stage trains, and how trained and frozen parameters become whole again.

The one place that tells training the weights from training adapters; stages only ever ask their
recipe.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from guardjax.train.config import LoraConfig
from guardjax.train.lora import apply_adapters, attach_adapters, init_adapters, target_kernels
from guardjax.train.state import Bundle, Params, init_state, merge_params, split_params

# Folded into a stage's key for the starting values; the key of a step folds in its number.
_START = np.uint32(2**32 - 1)
# What four bits are for: most of the weights. The tower, the words and the head stay as they are.
_LAYERS = r"model/layers(_\d+)?/"


class Recipe(Protocol):
    """How all parameters part into a trained and a frozen tree, and back."""

    def check(self, shapes: Params) -> None:
        """Checks that it fits a model by its tree of shapes, before anything runs.

        Raises:
          ValueError: a name in the config that the model does not have, or nothing to train.
        """
        ...

    def split(self, params: Params, key: jax.Array) -> tuple[Params, Params]:
        """Returns (trained, frozen); starting values of new parameters are drawn from the key.

        Raises:
          ValueError: as `check`.
        """
        ...

    def merge(self, trained: Params, frozen: Params) -> Params:
        """Returns all parameters as a forward pass takes them. Pure, for use inside `jit`."""
        ...

    def whole(self, trained: Params, frozen: Params) -> Params:
        """Returns all parameters as ordinary weights, which can be saved and trained on."""
        ...

    def adapters(self, trained: Params) -> Params:
        """Returns the adapters among what is trained; `{}` if it is the weights themselves."""
        ...

    def reference(self, trained: Params) -> Params:
        """Returns what `merge` takes in place of `trained` to give the model as it is now.

        It shares no buffer with `trained`, which steps donate. Call it right after `split`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class WeightRecipe:
    """Trains the parameters themselves, but for the groups in `freeze`."""

    freeze: tuple[str, ...] = ()

    def check(self, shapes: Params) -> None:
        """See `Recipe`."""
        split_params(shapes, self.freeze)

    def split(self, params: Params, key: jax.Array) -> tuple[Params, Params]:
        """See `Recipe`; draws nothing."""
        del key
        return split_params(params, self.freeze)

    def merge(self, trained: Params, frozen: Params) -> Params:
        """See `Recipe`: the union."""
        return merge_params(trained, frozen)

    def whole(self, trained: Params, frozen: Params) -> Params:
        """See `Recipe`: the union."""
        return merge_params(trained, frozen)

    def adapters(self, trained: Params) -> Params:
        """See `Recipe`: none."""
        del trained
        return {}

    def reference(self, trained: Params) -> Params:
        """See `Recipe`: a copy."""
        return jax.tree.map(jnp.copy, trained)


@dataclasses.dataclass(frozen=True)
class AdapterRecipe:
    """Trains adapters alone; all parameters are frozen, and groups in `freeze` get no adapter."""

    lora: LoraConfig
    freeze: tuple[str, ...] = ()

    def check(self, shapes: Params) -> None:
        """See `Recipe`."""
        target_kernels(split_params(shapes, self.freeze)[0], self.lora)
        four_bit_modules(self.lora)

    def split(self, params: Params, key: jax.Array) -> tuple[Params, Params]:
        """See `Recipe`; with `lora.base="nf4"` the frozen decoder layers are in four bits.

        They may be so already, as `load_hf` can read them.
        """
        adapters = init_adapters(split_params(params, self.freeze)[0], self.lora, key)
        if (chosen := four_bit_modules(self.lora)) is not None:
            from guardjax.models.nf4 import quantise    # the extra `qlora`

            params = quantise(params, chosen)
        return adapters, params

    def merge(self, trained: Params, frozen: Params) -> Params:
        """See `Recipe`: the adapters beside the kernels."""
        return attach_adapters(frozen, trained, self.lora)

    def whole(self, trained: Params, frozen: Params) -> Params:
        """See `Recipe`: the adapters added to the kernels, as they were when they were trained."""
        if self.lora.base == "nf4":
            from guardjax.models.nf4 import dequantised

            frozen = dequantised(frozen)
        return apply_adapters(frozen, trained, self.lora)

    def adapters(self, trained: Params) -> Params:
        """See `Recipe`: all that is trained."""
        return trained

    def reference(self, trained: Params) -> Params:
        """See `Recipe`: no adapters, since the frozen parameters are the model as it was."""
        del trained
        return {}


def four_bit_modules(lora: LoraConfig) -> Callable[[str], bool] | None:
    """Returns which modules of a base are in four bits, by their path; None if none are.

    Raises:
      ValueError: if some are, and qwix is not installed.
    """
    if lora.base != "nf4":
        return None
    if importlib.util.find_spec("qwix") is None:
        raise ValueError("lora.base='nf4' needs qwix: install guardjax[qlora], or set it to "
                         "'whole'")
    return lambda path: re.match(_LAYERS, path) is not None


def make_recipe(freeze: Sequence[str], lora: LoraConfig) -> Recipe:
    """Returns the recipe that a stage's config asks for."""
    return AdapterRecipe(lora, tuple(freeze)) if lora.rank else WeightRecipe(tuple(freeze))


def start_stage(recipe: Recipe, bundle: Bundle, tx: optax.GradientTransformation, *, seed: int,
                with_reference: bool = False) -> Bundle:
    """Returns the bundle before a stage's first step, from one that holds all parameters.

    Raises:
      ValueError: as `Recipe.split`.
    """
    key = jax.random.key(seed)
    trained, frozen = recipe.split(bundle.frozen, jax.random.fold_in(key, _START))
    return bundle.replace(
        state=init_state(trained, tx, key), frozen=frozen, merge=recipe.whole,
        ref_params=recipe.reference(trained) if with_reference else None)
