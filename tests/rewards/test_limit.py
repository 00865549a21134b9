"""Rewards that wait, wait together; one that hangs is named and the others are not lost."""

import threading
import time

import numpy as np
import pytest

from guardjax.rewards import Composition, Part, RewardError, per_row
from guardjax.rewards.limit import NoAnswer, call_all


def test_calls_wait_together():
    """Each goes on only when the other has come: one after another would be no answer."""
    both = threading.Barrier(2)
    calls = {name: lambda name=name: (both.wait(), name)[1] for name in ("a", "b")}
    assert call_all(calls, seconds=60) == {"a": "a", "b": "b"}


def test_without_a_limit_all_is_in_this_thread_and_in_order():
    seen = []
    calls = {name: lambda name=name: seen.append((name, threading.current_thread()))
             for name in ("b", "a")}
    call_all(calls, seconds=0)
    assert seen == [("b", threading.current_thread()), ("a", threading.current_thread())]


def test_the_first_that_fails_is_raised():
    with pytest.raises(ZeroDivisionError):
        call_all({"fine": lambda: 1, "bad": lambda: 1 / 0}, seconds=60)


def test_one_that_hangs_is_named(make):
    hanging = threading.Event()
    stuck = per_row(lambda example, completion: float(hanging.wait()))
    fine = per_row(lambda example, completion: 1.0)
    parts = Composition((Part("fine", fine), Part("stuck", stuck)))
    started = time.monotonic()
    with pytest.raises(RewardError, match="reward 'stuck': no answer within 0.2 s for 2 compl.*"
                                          "`reward_seconds` sets the limit"):
        parts.score([make()] * 2, ["a", "b"], seconds=0.2)
    assert time.monotonic() - started < 60
    hanging.set()
    np.testing.assert_array_equal(parts.score([make()] * 2, ["a", "b"], seconds=60).value, [2, 2])


def test_a_call_that_ran_out_of_time_has_its_name():
    with pytest.raises(NoAnswer) as caught:
        call_all({"slow": threading.Event().wait}, seconds=0.01)
    assert caught.value.name == "slow"
