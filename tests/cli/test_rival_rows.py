"""The rows that a rival's recipe has: each differs from one of ours in one thing."""

import dataclasses

from guardjax.cli import rows
from guardjax.train.config import HingeConfig


def test_they_are_a_group_of_their_own():
    assert rows.chosen_rows(["rivals"]) == list(rows.RIVALS)
    assert not set(rows.RIVALS) & set(rows.GROUPS["all"])
    assert set(rows.RIVALS) <= set(rows.names())
    assert [rows.load_row(row, 3).name for row in rows.RIVALS] == list(rows.RIVALS)


def test_the_pair_reward_is_all_that_is_new_in_grpo():
    ours, theirs = (rows.load_row(row, 0).stages for row in ("grpo_varied", "grpo_pair_varied"))
    assert theirs[0].rl.reward == "policy_shift"
    rl = dataclasses.replace(theirs[0].rl, reward=ours[0].rl.reward)
    assert (dataclasses.replace(theirs[0], rl=rl),) == ours


def test_pairs_and_hinges_come_one_after_the_other():
    sft, pairs, hinges = (rows.load_row(row, 0).stages[0] for row in (
        "sft_varied", "sft_pairs_varied", "bp_adapt_varied"))
    assert hinges.hinge == HingeConfig(own_coef=0.1, pair_coef=0.2, margin=0.5)
    assert dataclasses.replace(hinges, hinge=pairs.hinge) == pairs
    assert (pairs.hinge.own_coef, pairs.hinge.pair_coef) == (0.0, 0.0)
    assert dataclasses.replace(
        pairs, kind=sft.kind, name=sft.name, hinge=sft.hinge) == sft
