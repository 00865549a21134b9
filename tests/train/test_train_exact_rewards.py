"""Listed answers are rewarded one by one: a reward that looks at sampled ones has no place."""

import pytest

from guardjax.train.config import RLConfig
from guardjax.train.stages.exact import ExactStage


@pytest.mark.parametrize("reward", ["gated_pair", "policy_shift"])
def test_rewards_of_pairs_are_refused(small_guard, reward):
    config = small_guard.config("exact", 1, rl=RLConfig(reward=reward))
    with pytest.raises(ValueError, match=f"rl.reward='{reward}' .* choose 'gated'"):
        ExactStage(config, small_guard.model, small_guard.source(num=1), 0)
