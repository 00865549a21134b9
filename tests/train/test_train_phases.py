"""Where the time goes: phases that nest, what restarts lose, compilation, goodput."""

import json
import threading

import jax.numpy as jnp
import pytest

from guardjax.train.compilation import CountedJit
from guardjax.train.phases import TimeLedger, phase


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(name="clock")
def _clock():
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(clock):
    return TimeLedger(clock, clock)


def test_a_phase_has_what_no_phase_within_it_has(clock, ledger):
    clock.now += 1                          # start
    with ledger.phase("update"):
        clock.now += 2
        with ledger.phase("rollout"):
            clock.now += 4
            assert ledger.where == "update/rollout"
        clock.now += 8
    with ledger.phase("data"):
        clock.now += 16
    assert ledger.seconds() == {"start": 1, "update": 10, "rollout": 4, "data": 16}
    assert ledger.wall() == 31 and ledger.goodput() == pytest.approx(14 / 31)
    assert ledger.where == "start"


def test_an_error_ends_its_phase(clock, ledger):
    with pytest.raises(KeyError), ledger.phase("data"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    assert ledger.seconds() == {"start": 2, "data": 1}


def test_what_a_kill_cost_is_lost(clock, ledger):
    """Saved after 3 s of steps, killed 5 s later, started again after 7 s."""
    with ledger.phase("update"):
        clock.now += 3
    kept = json.loads(json.dumps(ledger.state()))
    clock.now += 5 + 7
    again = TimeLedger(clock, clock)
    clock.now += 2                          # imports, loading
    again.restore(kept)
    with again.phase("update"):
        clock.now += 3
    assert again.seconds() == {"start": 2, "update": 6, "lost": 12}
    assert again.wall() == 20 and again.goodput() == pytest.approx(0.3)
    assert again.summary() == (
        "time: 20 s, 2 starts, goodput 30% (share in rollout, rewards, update); where it went: "
        "lost 60%, update 30%, start 10%")


def test_a_ledger_that_nothing_was_kept_of_stays(clock, ledger):
    ledger.restore({})
    clock.now += 1
    assert ledger.seconds() == {"start": 1}
    assert "starts" not in ledger.summary()


def test_compiling_is_a_phase_of_its_own_and_only_the_first_time():
    ledger, program = TimeLedger(), CountedJit(lambda x: jnp.sin(x) @ jnp.cos(x))
    x = jnp.ones((8, 8))
    with ledger.active(), ledger.phase("update"):
        program(x)
        first = ledger.seconds()["compile"]
        program(x)
        assert ledger.where == "update"
    assert ledger.seconds()["compile"] == first > 0
    program.lower(jnp.ones((9, 9)))         # ahead of time, with no run around it
    program(x)


def test_only_the_runs_own_thread_is_counted():
    ledger, seen = TimeLedger(), []

    def other():
        with phase("rewards"):
            seen.append(ledger.where)

    with ledger.active(), ledger.phase("rollout"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with phase("rewards"):
            seen.append(ledger.where)
    with phase("rewards"):
        seen.append(ledger.where)
    assert seen == ["rollout", "rollout/rewards", "start"]
