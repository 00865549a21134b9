"""`rl` over the real architecture, small: pictures, M-RoPE, the key/value cache, one update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax import layout, models
from guardjax.rl.advantages import group_advantages
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch, Segment

G, T = 4, 6
