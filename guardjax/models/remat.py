"""What a layer keeps for the backward pass, and what it computes again.

* "none": everything;
* "dots": the results of its linear layers, which cost the most; norms, activations and attention
  are computed again;
* "full": only its input.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from guardjax.models.config import Remat

# A product of activations with each other has batch axes; one with a weight has none.
_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def remat_layer(layer: type[nn.Module], remat: Remat, *, scanned: bool) -> type[nn.Module]:
    """The class of a layer that keeps what `remat` says; its parameters are the same.

    A scan runs forward and backward as two loops, so that there nothing need be done to keep the
    compiler from sharing what was to be computed again.
    """
    if remat == "none":
        return layer
    return nn.remat(layer, policy=_POLICIES[remat], prevent_cse=not scanned)
