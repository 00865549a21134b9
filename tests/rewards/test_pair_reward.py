"""The contrast bonus: who is whose counterpart, and what both sides right earn."""

import numpy as np
import pytest

from guardjax.rewards.pair_reward import pair_reward
from guardjax.rewards.reward import call_reward

SAFE, UNSAFE, BROKEN = "<answer>safe</answer>", "<answer>unsafe: R2</answer>", "safe"


def call(examples, completions):
    return call_reward("pair", pair_reward, examples, completions)


def test_one_image_under_two_policies(make):
    safe = make("safe", image_id="i", policy_id="p", example_id="a")
    unsafe = make("unsafe", image_id="i", policy_id="q", example_id="b")
    value, applies = call(
        [safe] * 4 + [unsafe] * 2,
        [SAFE, SAFE, UNSAFE, BROKEN, UNSAFE, SAFE],
    )
    assert applies.all()
    # Half of the unsafe side is right, half of the safe side too.
    np.testing.assert_allclose(value, [0.5, 0.5, 0, 0, 0.5, 0])


def test_both_edits_under_one_policy(make):
    before = make("unsafe", image_id="i", policy_id="p", pair_id="e")
    after = make("safe", image_id="j", policy_id="p", pair_id="e")
    value, applies = call([before, after], [UNSAFE, SAFE])
    assert applies.all()
    np.testing.assert_array_equal(value, [1, 1])


def test_counterparts_weigh_equally(make):
    safe = make("safe", image_id="i", policy_id="p")
    first = make("unsafe", image_id="i", policy_id="q")
    second = make("unsafe", image_id="i", policy_id="r")
    value, _ = call([safe] + [first] * 3 + [second], [SAFE] + [SAFE] * 3 + [UNSAFE])
    assert value[0] == 0.5


@pytest.mark.parametrize(
    "other",
    [
        {"label": "safe", "image_id": "i", "policy_id": "q"},                      # same label
        {"label": "unsafe", "image_id": "j", "policy_id": "q"},                    # nothing shared
        {"label": "unsafe", "image_id": "j", "policy_id": "p"},                    # not an edit
        {"label": "unsafe", "image_id": "j", "policy_id": "q", "pair_id": "e"},    # both differ
        {"label": "unsafe", "image_id": "i", "policy_id": "p"},                    # both equal
        {"label": None, "rule_ids": (), "image_id": "i", "policy_id": "q"},        # a caption
    ],
)
def test_no_counterpart(make, other):
    one = make("safe", image_id="i", policy_id="p", pair_id="e")
    value, applies = call([one, make(**other)], [SAFE, UNSAFE])
    assert not applies.any() and not value.any()


def test_empty_ids_match_nothing(make):
    one = make("safe", example_id="a")
    other = make("unsafe", example_id="b")
    assert not call([one, other], [SAFE, UNSAFE])[1].any()


def test_a_constant_verdict_gets_nothing(make):
    pair = [make("safe", image_id="i", policy_id="p"), make("unsafe", image_id="i", policy_id="q")]
    for constant in (SAFE, UNSAFE):
        assert not call(pair * 4, [constant] * 8)[0].any()


def test_the_order_of_rows_does_not_matter(make):
    rng = np.random.default_rng(0)
    examples, texts = [], []
    for i in range(6):
        for p in range(4):
            label = "unsafe" if rng.random() < 0.5 else "safe"
            examples.append(make(label, image_id=f"i{i}", policy_id=f"p{p}", pair_id=f"e{i // 2}"))
            texts.append([SAFE, UNSAFE, BROKEN][rng.integers(3)])
    value, applies = call(examples, texts)
    order = rng.permutation(len(texts))
    turned = call([examples[i] for i in order], [texts[i] for i in order])
    np.testing.assert_allclose(value[order], turned[0])
    np.testing.assert_array_equal(applies[order], turned[1])
