"""Stage `grpo`: sample, reward, compare within the group, update (SafeGuard-VL, stage 2).

By default one update per rollout: the old log-probabilities are the stop-gradient of the recomputed
ones, so the ratio is 1 and the clip inert, as in the paper's released settings. With more (`epochs`
passes of `minibatches` updates) they are computed once, before the first. With a frozen tower the
pictures are encoded once, for sampling, reference and loss alike, or come from disk
(`feature_cache`); dynamic sampling, which updates on prompts of several batches (see `dynamic.py`),
encodes them once more for the update. With `policies_per_image` a picture goes through tower and
model once for all the policies that it is shown.

Sampling among the likelier tokens only (`rl.top_k`, `rl.top_p`, `rl.min_p`) is off-policy: the loss
stays one on the whole distribution, and each token is weighed by what the model gives it over what
the sampler did, which is the mass that was kept. The config refuses it without `rl.correction`.

An engine in another process (`rl.engine`, see `sampler.py`) rounds otherwise than this one, so the
config asks for `rl.correction` there, too.

Prompts without a label (captions, questions) may be mixed in as anchors: their answers are sampled
like the others, earn nothing, and are held to the reference by a k3 penalty of its own weight, so
that what no reward looks at is not forgotten. The idea is that of PPO-ptx (arXiv 2203.02155), with
a penalty in the place of its language loss; this form is our instantiation.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.data.sources import Batch, BatchSource
from guardjax.rewards.named import reward_by_name
from guardjax.rewards.reward import NonFiniteRewardError
from guardjax.rl.engine import Engine
from guardjax.rl.overlong import overlong_penalty
from guardjax.train.compilation import CountedJit
from guardjax.train.config import StageConfig
from guardjax.train.metrics import join_pairs
from guardjax.train.parts import by_trunk
from guardjax.train.phases import phase
from guardjax.train.stages import dynamic
from guardjax.train.stages.groups import SampledStep
from guardjax.train.stages.grpo_loss import GroupLoss
from guardjax.train.stages.logp_gap import LogpGapGuard
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.rewarding import score_rows
from guardjax.train.stages.rollout import Rollout, decode_answers, per_answer
from guardjax.train.stages.sampler import EngineSampler, LocalSampler, Sampler
from guardjax.train.stages.trained import Program, TrainedStage
from guardjax.train.state import Bundle


_LOG = logging.getLogger(__name__)


class GRPOStage(TrainedStage):
    """Group-relative policy optimisation over judged prompts."""

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int,
                 engine: Engine | None = None):
        """`engine` samples where `rl.engine` is not "local"."""
        if config.rl.dynamic_sampling:
            dynamic.check_source(config, len(source))
        super().__init__(config, source, seed, updates=config.rl.updates,
                         placement=model.placement)
        self._rl, self._model = config.rl, model
        self.with_reference = config.rl.kl_coef > 0 or config.rl.anchor_coef > 0
        self._reward = reward_by_name(config.rl.reward)
        self._gap = LogpGapGuard(
            config.name, config.rl.logp_gap_limit, model.cfg.dtype, config.rl.engine)
        if (engine is None) != (config.rl.engine == "local"):
            raise ValueError(f"rl.engine={config.rl.engine!r} and the stage was given "
                             f"{'no' if engine is None else 'an'} engine")
        self._sampler: Sampler = (LocalSampler(config, model, self.recipe) if engine is None
                                  else EngineSampler(engine, config, model))
        objective = GroupLoss(config, model, self.recipe)
        self._step = self._make_step(
            objective.loss, f"{config.name}/update", micro_batches=config.rl.micro_batches)
        self.jits = [*self._sampler.jits, self._step]
        self._score = None
        if config.rl.updates * config.rl.micro_batches > 1:
            self._score = CountedJit(objective.score, f"{config.name}/score")
            self.jits.append(self._score)

    def step(self, bundle: Bundle, batch: Batch) -> tuple[Bundle, Any, SampledStep]:
        """One rollout, or several with dynamic sampling, and its updates.

        Rewards are logged over all prompts drawn, not over those that were chosen for their
        rewards.
        """
        def roll(batch: Batch, first: int) -> Rollout:
            return self._roll(bundle, batch, first)

        if self._rl.dynamic_sampling:
            drawn = dynamic.draw_rounds(
                lambda batch, first: dataclasses.replace(roll(batch, first), features=None),
                batch, bundle.data_iterator, self._rl.dynamic_rounds)
            arrays = dynamic.gather_update(drawn, self._model.batcher, self._placement)
            logged = dynamic.round_metrics(drawn)
        else:
            drawn = [roll(batch, 0)]
            arrays = by_trunk(self._own(drawn[0].answers()), batch.prompts) | {
                "prompts": batch.prompts, "features": drawn[0].features}
            logged = {}
        state, metrics = self._update_all(bundle.state, _frozen(bundle), self._spread(arrays))
        step = bundle.clock.step + 1
        self._gap.observe(step, metrics, last=step == self.num_steps)
        metrics = dict(metrics) | logged | _join_all([rollout.metrics() for rollout in drawn])
        shown = SampledStep(drawn, self._model.batcher.tokenizer)
        return bundle.replace(state=state), metrics, shown

    def programs(self, bundle: Bundle, batch: Batch) -> tuple[Program, ...]:
        """What a step runs, of the first batch drawn: rollout, score (if any), update.

        Args:
          bundle: as `start` gives it, as `jax.ShapeDtypeStruct`s.
          batch: of shapes; the answers are the rollout's, of `rl.max_tokens`.
        """
        place = self._placement.batch_like if self._placement else lambda tree: tree
        rollout = self._sampler.program(bundle, batch)
        samples, features = place(jax.eval_shape(rollout.jit, *rollout.args))
        lead = samples.length.shape
        arrays = place({
            "tokens": samples.tokens, "length": samples.length, "ended": samples.ended,
            "sampled_logp": samples.logp, "model_logp": samples.model_logp,
            "rewards": jax.ShapeDtypeStruct(lead, jnp.float32),
            "valid": jax.ShapeDtypeStruct(lead, bool),
            "anchor": jax.ShapeDtypeStruct(lead[:1], bool)})
        arrays |= {"prompts": batch.prompts, "features": features}
        if self._rl.dynamic_sampling:
            arrays["features"] = None
        if self._score is None:
            return rollout, Program(self._step, (bundle.state, _frozen(bundle), arrays))
        score = Program(self._score, (bundle.state.params, _frozen(bundle), arrays))
        arrays = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
            (leaf.shape[0] // self._rl.minibatches, *leaf.shape[1:]), leaf.dtype),
            arrays | jax.eval_shape(self._score, *score.args))
        return rollout, score, Program(
            self._step, (bundle.state, _frozen(bundle), place(arrays)))

    def finish(self, bundle: Bundle) -> Bundle:
        """As of every trained stage; an engine is done with."""
        self._sampler.close()
        return super().finish(bundle)

    def _update_all(self, state: Any, frozen: Any, arrays: dict[str, Any]) -> tuple[Any, Any]:
        """Every update of a rollout, minibatch after minibatch, pass after pass."""
        if self._score is None:
            return self._step(state, frozen, arrays)
        arrays = arrays | self._score(state.params, frozen, arrays)
        metrics = []
        for _ in range(self._rl.epochs):
            for k in range(self._rl.minibatches):
                part = arrays if self._rl.minibatches == 1 else jax.tree.map(
                    lambda leaf, k=k: leaf[k::self._rl.minibatches], arrays)
                state, found = self._step(state, frozen, self._spread(part))
                metrics.append(found)
        return state, _join_all(metrics)

    def _roll(self, bundle: Bundle, batch: Batch, first: int) -> Rollout:
        """Samples and rewards; `first` prompts were drawn before in this step.

        Rewards are given before any prompt is taken out: some look at both members of a pair.
        """
        with phase("rollout"):
            samples, features = self._sampler.sample(bundle, batch, first)
            texts = decode_answers(samples, self._model.batcher.tokenizer)
        examples, finite = per_answer(batch.examples, self._rl.group_size), True
        try:
            with phase("rewards"):
                scores = score_rows(self._reward, examples, texts, self._placement,
                                    seconds=self._rl.reward_seconds)
        except NonFiniteRewardError as error:
            _LOG.warning("step %d is skipped: %s", bundle.clock.step + 1, error)
            scores, finite = self._reward.silent(len(texts)), False
        # A function of somebody's own may have an opinion on a caption, too.
        scores = scores.only(np.array([bool(example.label) for example in examples]))
        shaping = None
        if self._rl.overlong == "shape":
            shaping = overlong_penalty(
                samples.length, max_tokens=self._rl.max_tokens,
                buffer=max(1, round(self._rl.overlong_buffer * self._rl.max_tokens)))
        return Rollout(batch.examples, features, samples, texts, scores, shaping, finite)

def _frozen(bundle: Bundle) -> dict[str, Any]:
    return {"frozen": bundle.frozen, "ref": bundle.ref_params}


def _join_all(
    metrics: Sequence[dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """Joins (sum, count) of several batches, name by name."""
    return {name: functools.reduce(functools.partial(join_pairs, name),
                                   (each[name] for each in metrics)) for name in metrics[0]}
