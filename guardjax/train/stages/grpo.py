"""Stage `grpo`: sample, reward, compare within the group, update (SafeGuard-VL, stage 2).

One update per rollout: the old log-probabilities are the stop-gradient of the recomputed ones, so
the ratio is 1 and the clip inert, as in the paper's released settings. With a frozen tower the
pictures are encoded once, for sampling, reference and loss alike; dynamic sampling, which updates
on prompts of several batches (see `dynamic.py`), encodes them once more for the update.

Prompts without a label (captions, questions) may be mixed in as anchors: their answers are sampled
like the others, earn nothing, and are held to the reference by a k3 penalty of its own weight, so
that what no reward looks at is not forgotten. The idea is that of PPO-ptx (arXiv 2203.02155), with
a penalty in the place of its language loss; this form is our instantiation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.data.sources import Batch, BatchSource
from guardjax.rewards.named import reward_by_name
from guardjax.rl.advantages import group_advantages, zero_variance
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.model_fns import encode_vision
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.train.compilation import CountedJit
from guardjax.train.config import StageConfig
from guardjax.train.console import SampleRow
from guardjax.train.recipe import Recipe
from guardjax.train.stages import dynamic
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.rollout import Rollout, decode_answers, per_answer
from guardjax.train.stages.trained import TrainedStage
from guardjax.train.state import Bundle


class GRPOStage(TrainedStage):
    """Group-relative policy optimisation over judged prompts."""

    with_reference = True

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int):
        if config.rl.dynamic_sampling:
            dynamic.check_source(config, len(source))
        super().__init__(config, source, seed)
        self._rl, self._model = config.rl, model
        self._reward = reward_by_name(config.rl.reward)
        self._rollout = CountedJit(
            _make_rollout(config, model, self.recipe), f"{config.name}/rollout")
        self._step = self._make_step(
            _make_loss(config, model, self.recipe), f"{config.name}/update")
        self.jits = [self._rollout, self._step]

    def step(
        self, bundle: Bundle, batch: Batch
    ) -> tuple[Bundle, Any, Callable[[], Sequence[SampleRow]]]:
        """One rollout, or several with dynamic sampling, and one update.

        Rewards are logged over all prompts drawn, not over those that were chosen for their
        rewards.
        """
        def roll(batch: Batch, first: int) -> Rollout:
            return self._roll(bundle, batch, first)

        if self._rl.dynamic_sampling:
            drawn = dynamic.draw_rounds(
                roll, batch, bundle.data_iterator, self._rl.dynamic_rounds)
            arrays = dynamic.gather_update(drawn, self._model.batcher)
            logged = dynamic.round_metrics(drawn)
        else:
            drawn = [roll(batch, 0)]
            arrays = drawn[0].answers() | {
                "prompts": batch.prompts, "features": drawn[0].features}
            logged = {}
        frozen = {"frozen": bundle.frozen, "ref": bundle.ref_params}
        state, metrics = self._step(bundle.state, frozen, arrays)
        metrics = dict(metrics) | logged | _sum_pairs([rollout.metrics() for rollout in drawn])
        return bundle.replace(state=state), metrics, drawn[0].table

    def _roll(self, bundle: Bundle, batch: Batch, first: int) -> Rollout:
        """Samples and rewards; `first` prompts were drawn before in this step.

        Rewards are given before any prompt is taken out: some look at both members of a pair.
        """
        key = jax.random.fold_in(bundle.state.key, bundle.state.step)
        samples, features = self._rollout(
            bundle.state.params, bundle.frozen, batch.prompts, key, jnp.int32(first))
        samples = jax.device_get(samples)
        texts = decode_answers(samples, self._model.batcher.tokenizer)
        scores = self._reward.score(per_answer(batch.examples, self._rl.group_size), texts)
        return Rollout(batch.examples, features, samples, texts, scores)


def _make_rollout(config: StageConfig, model: StageModel, recipe: Recipe) -> Callable[..., Any]:
    tokenizer, rl = model.batcher.tokenizer, config.rl
    sampling = SamplingParams(rl.group_size, rl.max_tokens, tokenizer.end_id, tokenizer.pad_id)
    transform = model.transform(rl.temperature)

    def rollout(
        trained: Any, frozen: Any, prompts: Any, key: jax.Array, first: jax.Array
    ) -> tuple[Any, Any]:
        params = recipe.merge(trained, frozen)
        features = encode_vision(model.fns, params, prompts)
        index = first + jnp.arange(prompts.next_pos.shape[0], dtype=jnp.int32)
        samples = generate(model.fns, params, prompts, key, sampling, transform,
                           example_index=index, features=features)
        # Features of a tower that is trained must be encoded again, with their gradient.
        return samples, None if "visual" in trained else features

    return rollout


def _make_loss(config: StageConfig, model: StageModel, recipe: Recipe) -> Callable[..., Any]:
    rl, transform = config.rl, model.transform(config.rl.temperature)
    loss_params = LossParams(
        clip_low=rl.clip_low, clip_high=rl.clip_high, kl_coef=rl.kl_coef,
        aggregate=rl.aggregate, entropy_coef=rl.entropy_coef, max_tokens=rl.max_tokens)
    anchor_params = dataclasses.replace(loss_params, kl_coef=rl.anchor_coef, entropy_coef=0.0)

    def loss(trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
        del key
        params, features = recipe.merge(trained, frozen["frozen"]), batch["features"]
        if "visual" not in trained:
            features = encode_vision(model.fns, params, batch["prompts"], features)
        args = (batch["prompts"], batch["tokens"], batch["length"], transform)
        logp, entropy = token_logprobs(model.fns, params, *args, features=features)
        ref_logp = None
        if rl.kl_coef > 0 or rl.anchor_coef > 0:
            ref = recipe.merge(frozen["ref"], frozen["frozen"])
            ref_logp = jax.lax.stop_gradient(
                token_logprobs(model.fns, ref, *args, features=features)[0])
        advantages = group_advantages(
            batch["rewards"], scale=rl.advantage_scale, valid=batch["valid"])
        judged = batch["valid"].any(axis=1)
        flat = zero_variance(batch["rewards"], batch["valid"]) & judged
        mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
        gap = jnp.abs(logp - batch["sampled_logp"]).sum()
        sums = policy_loss(logp, None, ref_logp, advantages, mask & judged[:, None, None],
                           loss_params, entropy)
        metrics = {f"grpo/{name}": pair for name, pair in sums.metrics().items()}
        metrics["grpo/zero_variance"] = (flat.sum(), judged.sum())
        metrics["rollout/logp_gap"] = (gap, mask.sum())
        if rl.anchor_coef > 0:
            # Nothing rewards these answers: all that is asked is that they stay the reference's.
            anchors = policy_loss(logp, None, ref_logp, advantages, mask & ~judged[:, None, None],
                                  anchor_params)
            metrics["grpo/anchor_kl"] = (anchors.kl, anchors.tokens)
            sums = sums + anchors
        return sums.loss, sums.count, metrics

    return loss


def _sum_pairs(
    metrics: Sequence[dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """Adds (sum, count) of several batches, name by name."""
    return {name: tuple(sum(part) for part in zip(*(each[name] for each in metrics)))
            for name in metrics[0]}
