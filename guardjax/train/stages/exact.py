"""Stage `exact`: gradient of the expected reward over every possible short verdict.

The control for GRPO: the same prompts and rewards, no sampling and no groups without signal. The
listed answers are `safe` and every way to cite the policy's rules; anything else earns 0.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.data.sources import Batch, BatchSource
from guardjax.policies import Label, format_verdict
from guardjax.rewards.named import COUNTERPART_REWARDS, reward_by_name
from guardjax.rl.exact import expected_reward_of_answers
from guardjax.rl.logprobs import token_logprobs
from guardjax.train.config import StageConfig
from guardjax.train.phases import phase
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.rewarding import score_rows
from guardjax.train.stages.rollout import per_answer
from guardjax.train.stages.trained import TrainedStage
from guardjax.train.state import Bundle

MAX_RULES = 5           # of the policies that can be listed: 1 + 2**5 - 1 answers
_IMPOSSIBLE = -1e9      # log-probability of a filler


class ExactStage(TrainedStage):
    """Expected-reward maximisation over listed verdicts."""

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int):
        super().__init__(config, source, seed, placement=model.placement)
        self._model, self._reward = model, reward_by_name(config.rl.reward)
        if any(part.reward in COUNTERPART_REWARDS for part in self._reward.parts):
            raise ValueError(
                f"rl.reward={config.rl.reward!r} rewards an answer by the counterpart's sampled "
                "answers, and listed answers say nothing of that; choose 'gated'")
        self._seconds = config.rl.reward_seconds
        transform = model.transform(config.rl.temperature)

        def loss(trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
            del key
            params = self.recipe.merge(trained, frozen)
            logp, _ = token_logprobs(
                model.fns, params, batch["prompts"], batch["tokens"], batch["length"], transform)
            answers = jnp.where(batch["length"] > 0, logp.sum(-1), _IMPOSSIBLE)
            expected = expected_reward_of_answers(answers, batch["rewards"], 0.0)
            count = jnp.float32(expected.shape[0])
            listed = jnp.exp(answers).sum()
            return -expected.sum(), count, {
                "reward/expected": (expected.sum(), count), "exact/listed": (listed, count),
                "exact/tokens": (batch["length"].sum().astype(jnp.float32), count)}

        self.jits = [self._make_step(loss, config.name)]

    def step(self, bundle: Bundle, batch: Batch) -> tuple[Bundle, Any, None]:
        """Lists the answers, rewards them, and takes one update."""
        texts = [listed_answers(example.facts["rules"]) for example in batch.examples]
        width = max(len(group) for group in texts)  # a power of two, so the shapes are few
        texts = [[*group, *[""] * (width - len(group))] for group in texts]
        with phase("rewards"):
            scores = score_rows(
                self._reward, per_answer(batch.examples, width),
                [text for group in texts for text in group], self._placement,
                seconds=self._seconds)
        tokens, length = self._model.batcher.answers(
            texts, ids=[example.example_id for example in batch.examples])
        listed = {"tokens": tokens, "length": length,
                  "rewards": scores.value.reshape(-1, width).astype(np.float32)}
        arrays = self._own(listed) | {"prompts": batch.prompts}
        return self._update(bundle, arrays)


def listed_answers(rule_ids: tuple[str, ...]) -> list[str]:
    """`safe` and every non-empty choice of rules, in policy order.

    Raises:
      ValueError: more than `MAX_RULES` rules, where the list would be too long.
    """
    if len(rule_ids) > MAX_RULES:
        raise ValueError(
            f"a policy of {len(rule_ids)} rules has {2 ** len(rule_ids)} verdicts; the exact "
            f"gradient lists them and takes at most {MAX_RULES} rules: use grpo"
        )
    cited = (choice for size in range(1, len(rule_ids) + 1)
             for choice in itertools.combinations(rule_ids, size))
    return [format_verdict(Label("safe")),
            *(format_verdict(Label("unsafe", choice)) for choice in cited)]
