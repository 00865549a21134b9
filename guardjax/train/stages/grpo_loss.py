"""The loss of stage `grpo` on a batch of sampled groups, and what is measured beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.rl.advantages import group_advantages, zero_variance
from guardjax.rl.answers import completion_mask
from guardjax.rl.divergence import penalised_rewards
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.model_fns import encode_vision
from guardjax.rl.ratios import truncated_weights
from guardjax.train.config import StageConfig
from guardjax.train.metrics import MAX_SUFFIX
from guardjax.train.parts import by_prompt, by_trunk, join_parts, split_parts
from guardjax.train.recipe import Recipe
from guardjax.train.stages.logp_gap import GAP
from guardjax.train.stages.model import StageModel
from guardjax.types import Array


class GroupLoss:
    """Two functions of (trained, frozen, batch), both pure; `frozen` is {"frozen", "ref"}.

    A batch holds prompts, features (or None) and `Rollout.answers()`, the answers `by_trunk`.
    """

    def __init__(self, config: StageConfig, model: StageModel, recipe: Recipe):
        rl = config.rl
        self._rl, self._fns, self._recipe = rl, model.fns, recipe
        self._transform = model.transform(rl.temperature)
        self._params = LossParams(
            ratio=rl.ratio, clip_low=rl.clip_low, clip_high=rl.clip_high,
            kl_coef=rl.kl_coef, kl=rl.kl, kl_in=rl.kl_in,
            aggregate=rl.aggregate, entropy_coef=rl.entropy_coef, max_tokens=rl.max_tokens)
        self._anchor_params = dataclasses.replace(
            self._params, kl_coef=rl.anchor_coef, kl="k3", kl_in="loss", entropy_coef=0.0)

    def loss(self, trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array
             ) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
        """(sum, count, metrics) as `steps.make_train_step` wants them.

        What `score` gives is taken from the batch if it is there. Otherwise this is the only
        update of its rollout: the ratio is to the stop-gradient of the log-probabilities, 1.
        """
        del key
        rl, batch = self._rl, _flat(batch)
        logp, entropy, ref_logp = self._logprobs(trained, frozen, batch)
        old_logp, advantages = batch.get("old_logp"), batch.get("advantages")
        before = logp if old_logp is None else old_logp
        if advantages is None:
            advantages = self._advantages(batch, before, ref_logp)
        judged = batch["valid"].any(axis=1)
        flat = zero_variance(batch["rewards"], batch["valid"]) & judged
        mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
        # Against the model's own, as truncation is no fault of the sampler's arithmetic.
        gap = jnp.where(mask, jnp.abs(before - batch["model_logp"]), 0)
        counted, weights = mask & judged[:, None, None], None
        if rl.overlong == "filter":
            counted = counted & batch["ended"][..., None]
        if rl.correction != "none":
            weights = truncated_weights(before, batch["sampled_logp"], mask,
                                        level=rl.correction, cap=rl.correction_cap)
        sums = policy_loss(
            logp, old_logp, ref_logp, advantages, counted, self._params, entropy, weights)
        metrics = {f"grpo/{name}": pair for name, pair in sums.metrics().items()}
        metrics["grpo/zero_variance"] = (flat.sum(), judged.sum())
        metrics[GAP] = (gap.sum(), mask.sum())
        metrics[GAP + MAX_SUFFIX] = (gap.max(), mask.any())
        if weights is not None:
            metrics["grpo/correction"] = (jnp.where(counted, weights, 0).sum(), counted.sum())
        if rl.anchor_coef > 0:
            # Nothing rewards these answers: all that is asked is that they stay the reference's.
            anchors = policy_loss(logp, old_logp, ref_logp, advantages,
                                  mask & batch["anchor"][:, None, None], self._anchor_params)
            metrics["grpo/anchor_kl"] = (anchors.kl, anchors.tokens)
            sums = sums + anchors
        return sums.loss, sums.count, metrics

    def score(self, trained: Any, frozen: Any, batch: dict[str, Any]) -> dict[str, Array]:
        """What stays while a rollout is used, and must be known before the batch is cut.

        Returns:
          "old_logp" [B, G, T] and "advantages" [B, G], and "ref_logp" [B, G, T] where a penalty
          or an anchor needs it, all `by_trunk`.
        """
        def logprobs(part: dict[str, Any]) -> dict[str, Array]:
            logp, _, ref_logp = self._logprobs(trained, frozen, _flat(part))
            found = {"old_logp": logp} | ({} if ref_logp is None else {"ref_logp": ref_logp})
            return by_trunk(found, part["prompts"])

        parts = self._rl.minibatches * self._rl.micro_batches
        found = logprobs(batch) if parts == 1 else join_parts(
            jax.lax.map(logprobs, split_parts(batch, parts)))
        found = by_prompt(found, batch["prompts"])
        advantages = self._advantages(_flat(batch), found["old_logp"], found.get("ref_logp"))
        return by_trunk(found | {"advantages": advantages}, batch["prompts"])

    def _logprobs(self, trained: Any, frozen: Any, batch: dict[str, Any]
                  ) -> tuple[Array, Array, Array | None]:
        """Log-probabilities, entropies and the reference's log-probabilities, all [B, G, T]."""
        params, features = self._recipe.merge(trained, frozen["frozen"]), batch["features"]
        if "visual" not in trained:
            features = encode_vision(self._fns, params, batch["prompts"], features)
        args = (batch["prompts"], batch["tokens"], batch["length"], self._transform)
        logp, entropy = token_logprobs(self._fns, params, *args, features=features)
        ref_logp = batch.get("ref_logp")
        if (self._rl.kl_coef > 0 or self._rl.anchor_coef > 0) and ref_logp is None:
            ref = self._recipe.merge(frozen["ref"], frozen["frozen"])
            ref_logp = jax.lax.stop_gradient(
                token_logprobs(self._fns, ref, *args, features=features)[0])
        return logp, entropy, ref_logp

    def _advantages(self, batch: dict[str, Any], before: Array, ref_logp: Array | None) -> Array:
        rl, rewards = self._rl, batch["rewards"]
        if rl.kl_in == "reward" and rl.kl_coef > 0:
            mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
            rewards = penalised_rewards(
                rewards, before, ref_logp, mask, coef=rl.kl_coef, kind=rl.kl)
        return group_advantages(rewards, scale=rl.advantage_scale, baseline=rl.baseline,
                                valid=batch["valid"])


def _flat(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its answers by prompt, [B, ...]; prompts and features as they are."""
    kept = {name: batch[name] for name in ("prompts", "features")}
    answers = {name: array for name, array in batch.items() if name not in kept}
    return by_prompt(answers, batch["prompts"]) | kept
