"""Stage `grpo`: sample, reward, compare within the group, update (SafeGuard-VL, stage 2).

One update per rollout: the old log-probabilities are the stop-gradient of the recomputed ones, so
the ratio is 1 and the clip inert, as in the paper's released settings. With a frozen tower the
pictures are encoded once, for sampling, reference and loss alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.data.sources import Batch, BatchSource, iterate
from guardjax.policies import parse_verdict
from guardjax.rewards.compose import Scores
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
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle, init_state, merge_params, split_params
from guardjax.train.steps import make_train_step
from guardjax.types import PolicyExample

_TABLE_ROWS = 6


class GRPOStage:
    """Group-relative policy optimisation over judged prompts."""

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int):
        self.name, self.num_steps = config.name, config.steps
        self._config, self._model, self._source, self._seed = config, model, source, seed
        self._reward = reward_by_name(config.rl.reward)
        self._tx = make_optimizer(config.optim, config.steps)
        self._rollout = CountedJit(_make_rollout(config, model), f"{config.name}/rollout")
        self._step = make_train_step(
            _make_loss(config, model), self._tx, name=f"{config.name}/update",
            schedule=make_schedule(config.optim, config.steps))
        self.jits = [self._rollout, self._step]

    def init(self, bundle: Bundle) -> Bundle:
        """The reference is the model as this stage finds it."""
        trained, frozen = split_params(bundle.frozen, self._config.freeze)
        key = jax.random.key(self._seed)
        return dataclasses.replace(
            bundle, state=init_state(trained, self._tx, key), frozen=frozen,
            ref_params=jax.tree.map(jnp.copy, trained), data_iterator=iterate(self._source))

    def step(
        self, bundle: Bundle, batch: Batch
    ) -> tuple[Bundle, Any, Callable[[], Sequence[SampleRow]]]:
        """One rollout and one update."""
        group = self._config.rl.group_size
        key = jax.random.fold_in(bundle.state.key, bundle.state.step)
        samples, features = self._rollout(bundle.state.params, bundle.frozen, batch.prompts, key)
        host = jax.device_get(samples)
        texts = self._texts(host)
        examples = [example for example in batch.examples for _ in range(group)]
        scores = self._reward.score(examples, texts)
        arrays = {
            "prompts": batch.prompts, "tokens": samples.tokens, "length": samples.length,
            "sampled_logp": samples.logp,
            "rewards": scores.value.reshape(-1, group).astype(np.float32),
            "valid": scores.applies.reshape(-1, group), "features": features,
        }
        frozen = {"frozen": bundle.frozen, "ref": bundle.ref_params}
        state, metrics = self._step(bundle.state, frozen, arrays)
        metrics = dict(metrics) | _reward_metrics(scores, examples, texts, host)
        return (bundle.replace(state=state), metrics,
                lambda: _table(examples, texts, scores, group))

    def finish(self, bundle: Bundle) -> Bundle:
        """All parameters, nothing else."""
        return bundle.finished()

    def _texts(self, samples: Any) -> list[str]:
        """Decoded completions, row b * G + g; "" for one that the limit cut."""
        tokenizer = self._model.batcher.tokenizer
        flat = zip(samples.tokens.reshape(-1, samples.tokens.shape[-1]),
                   samples.length.reshape(-1), samples.ended.reshape(-1), strict=True)
        return [tokenizer.decode(row[:n]) if ended else "" for row, n, ended in flat]


def _make_rollout(config: StageConfig, model: StageModel) -> Callable[..., Any]:
    tokenizer, rl = model.batcher.tokenizer, config.rl
    sampling = SamplingParams(rl.group_size, rl.max_tokens, tokenizer.end_id, tokenizer.pad_id)
    transform = model.transform(rl.temperature)

    def rollout(trained: Any, frozen: Any, prompts: Any, key: jax.Array) -> tuple[Any, Any]:
        params = merge_params(trained, frozen)
        features = encode_vision(model.fns, params, prompts)
        samples = generate(
            model.fns, params, prompts, key, sampling, transform, features=features)
        # Features of a tower that is trained must be encoded again, with their gradient.
        return samples, features if "visual" in config.freeze else None

    return rollout


def _make_loss(config: StageConfig, model: StageModel) -> Callable[..., Any]:
    rl, transform = config.rl, model.transform(config.rl.temperature)
    loss_params = LossParams(
        clip_low=rl.clip_low, clip_high=rl.clip_high, kl_coef=rl.kl_coef,
        aggregate=rl.aggregate, entropy_coef=rl.entropy_coef, max_tokens=rl.max_tokens)

    def loss(trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
        del key
        args = (batch["prompts"], batch["tokens"], batch["length"], transform)
        params = merge_params(trained, frozen["frozen"])
        logp, entropy = token_logprobs(model.fns, params, *args, features=batch["features"])
        ref_logp = None
        if rl.kl_coef > 0:
            ref = merge_params(frozen["ref"], frozen["frozen"])
            ref_logp = jax.lax.stop_gradient(
                token_logprobs(model.fns, ref, *args, features=batch["features"])[0])
        advantages = group_advantages(
            batch["rewards"], scale=rl.advantage_scale, valid=batch["valid"])
        flat = zero_variance(batch["rewards"], batch["valid"])
        mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
        sums = policy_loss(logp, None, ref_logp, advantages, mask, loss_params, entropy)
        gap = jnp.abs(logp - batch["sampled_logp"]).sum()
        metrics = {f"grpo/{name}": pair for name, pair in sums.metrics().items()}
        metrics["grpo/zero_variance"] = (flat.sum(), jnp.float32(flat.size))
        metrics["rollout/logp_gap"] = (gap, mask.sum())
        return sums.loss, sums.count, metrics

    return loss


def _reward_metrics(
    scores: Scores, examples: Sequence[PolicyExample], texts: Sequence[str], samples: Any
) -> dict[str, tuple[float, float]]:
    """(sum, count) of every reward part, and what the answers look like."""
    metrics = {f"reward/{name}": pair for name, pair in scores.sums().items()}
    verdicts = [parse_verdict(text, e.facts.get("rules"))
                for e, text in zip(examples, texts, strict=True)]
    num = float(len(verdicts))
    right = sum(v.outcome == e.label for v, e in zip(verdicts, examples, strict=True))
    return metrics | {
        "rollout/right": (float(right), num),
        "rollout/unsafe": (float(sum(v.outcome == "unsafe" for v in verdicts)), num),
        "rollout/invalid": (float(sum(v.problem is not None for v in verdicts)), num),
        "rollout/truncated": (float((~samples.ended).sum()), num),
        "rollout/tokens": (float(samples.length.sum()), num),
    }


def _table(
    examples: Sequence[PolicyExample], texts: Sequence[str], scores: Scores, group: int
) -> list[SampleRow]:
    """One answer each of the first few prompts."""
    rows = []
    for index in range(0, min(len(texts), _TABLE_ROWS * group), group):
        verdict = parse_verdict(texts[index], examples[index].facts.get("rules"))
        parts = {name: float(value[index]) for name, (value, _) in scores.parts.items()}
        rows.append(SampleRow(
            policy=examples[index].policy_text, rationale=verdict.rationale or "",
            verdict=f"{texts[index]} (gold: {examples[index].label})", reward=parts))
    return rows
