"""Rewards over several processes: counterparts are found wherever in the batch they lie."""

import dataclasses

import numpy as np
import pytest

from guardjax.rewards.named import reward_by_name
from guardjax.train import hosts
from guardjax.train.stages.rewarding import score_rows
from guardjax.types import PolicyExample


@dataclasses.dataclass(frozen=True)
class Half:
    """What `score_rows` asks of a placement: which rows are this process's."""

    process: int

    def rows(self, total):
        return slice(self.process * total // 2, (self.process + 1) * total // 2)


def example(index, policy, label):
    """A question about the picture that all share."""
    rules = ("R1",)
    return PolicyExample(f"{index}", "judge", "safe?", f"R1: no {policy}.", label=label,
                         rule_ids=rules if label == "unsafe" else (), image_id="one",
                         policy_id=policy, facts={"rules": rules})


@pytest.mark.parametrize("name", ["gated_pair", "policy_shift"])
def test_a_counterpart_of_another_processs_rows_counts(name, monkeypatch):
    """One picture drawn into both halves of a batch, as small data sets have it."""
    labels = ["safe", "safe", "unsafe", "unsafe"]
    examples = [example(i, f"p{i}", label) for i, label in enumerate(labels)]
    texts = ["<answer>safe</answer>"] * 2 + ["<answer>unsafe: R1</answer>"] * 2
    reward = reward_by_name(name)
    whole = score_rows(reward, examples, texts, None, seconds=0)
    monkeypatch.setattr(hosts, "num_processes", lambda: 2)
    for process in range(2):
        found = score_rows(reward, examples, texts, Half(process), seconds=0)
        np.testing.assert_array_equal(found.value, whole.value)
    halves = [reward.score(examples[rows], texts[rows]) for rows in (slice(2), slice(2, 4))]
    assert (np.concatenate([half.value for half in halves]) != whole.value).any()
