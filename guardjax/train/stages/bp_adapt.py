"""Stage `bp_adapt`: cross-entropy and hinge losses on matched pairs (PolicyShiftGuard, BP-Adapt).

The strongest rival's recipe, as a control (arXiv 2607.05910):

    L = CE + own_coef * mean over prompts of own + pair_coef * mean over pairs of pair

with the hinges of `rl/pair_hinge.py` at the one token where the forms of a verdict part
(`data/decision.py`). Both coefficients 0 are stage `sft` on the same pairs. Our readings: CE is
the mean over answer tokens, as in stage `sft`; the word "unsafe" stands for their "true" (block),
"safe" for "false" (pass).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.data.decision import decision_of
from guardjax.data.matched_pairs import MatchedPairs
from guardjax.data.sources import Batch
from guardjax.rl.logprobs import answer_states
from guardjax.rl.pair_hinge import pair_hinge
from guardjax.train.config import StageConfig
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.sft import SFTStage
from guardjax.train.state import Bundle
from guardjax.types import PolicyExample


class BPAdaptStage(SFTStage):
    """Supervised fine-tuning that holds a picture's two verdicts against each other."""

    def __init__(self, config: StageConfig, model: StageModel, source: MatchedPairs, seed: int):
        """
        Raises:
          TokenizerError: answers do not decide at one token.
        """
        self._hinge, self._decision = config.hinge, decision_of(model.batcher.tokenizer)
        super().__init__(config, model, source, seed)

    def step(self, bundle: Bundle, batch: Batch) -> tuple[Bundle, Any, None]:
        """One update.

        Raises:
          ValueError: the examples are no matched pairs.
        """
        _check_pairs(batch.examples)
        return super().step(bundle, batch)

    def _loss(self, trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
        del key
        params = self.recipe.merge(trained, frozen)
        states = answer_states(
            self._model.fns, params, batch["prompts"], batch["tokens"], batch["length"])
        loss, count, metrics = self._cross_entropy(params, batch, states)
        logits = self._model.fns.unembed(params, states.at(self._decision.position)[:, 0])
        hinge = pair_hinge(logits[:, self._decision.safe], logits[:, self._decision.unsafe],
                           self._hinge.margin)
        # The sum is divided by the tokens; the hinges are means over prompts and pairs.
        loss += count * (self._hinge.own_coef * hinge.own.mean()
                         + self._hinge.pair_coef * hinge.pair.mean())
        metrics |= {f"bp_adapt/{name}": (value.sum(), jnp.float32(value.size))
                    for name, value in hinge._asdict().items()}
        return loss, count, metrics


def _check_pairs(examples: Sequence[PolicyExample]) -> None:
    for k, (one, other) in enumerate(zip(examples[0::2], examples[1::2], strict=True)):
        if (one.label, other.label) != ("safe", "unsafe") or one.image_id != other.image_id:
            raise ValueError(
                f"examples {2 * k} and {2 * k + 1} are no matched pair: {one.label!r} of picture "
                f"{one.image_id!r} and {other.label!r} of {other.image_id!r}, not 'safe' and "
                "'unsafe' of one picture; take them from MatchedPairs")
