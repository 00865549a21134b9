"""How the verbs say what stopped them."""

from __future__ import annotations

import signal
from collections.abc import Callable

from guardjax.cli.usage import fail


def told(verb: str, work: Callable[[], int]) -> int:
    """The exit status of `work`, or a line on stderr that says why it stopped, and a status.

    That is 2 for bad input, 1 where a run gave up with its state kept, and the shell's own for a
    signal (130 for Ctrl-C, 143 for SIGTERM). What is no known reason is raised as it is.
    """
    try:
        return work()
    except (Exception, SystemExit) as error:
        status = _explained(verb, error)
        if status is None:
            raise
        return status


def _explained(verb: str, error: BaseException) -> int | None:
    # Not before something stopped: these imports take seconds, and some verbs need none of them.
    import jax

    from guardjax.data.datasets.record import DatasetError
    from guardjax.data.prompts import PromptError
    from guardjax.data.sources import SourceError
    from guardjax.eval.answer_file import AnswersMismatch
    from guardjax.policies import PolicyError
    from guardjax.rewards.reward import RewardError
    from guardjax.rl.engine import EngineError
    from guardjax.train.agreement import DisagreementError
    from guardjax.train.checkpoint import CheckpointError
    from guardjax.train.config import ConfigError
    from guardjax.train.disk import DiskFullError, is_full_disk
    from guardjax.train.guard import NonFiniteError
    from guardjax.train.hosts import PeerError
    from guardjax.train.join import JoinError
    from guardjax.train.loop import DataEndedError
    from guardjax.train.preemption import Preempted
    from guardjax.train.roll_call import RollCallError
    from guardjax.train.stages.logp_gap import LogpGapError
    from guardjax.train.workdir import WorkdirError
    from guardjax.world.builder import IncompleteBuild
    from guardjax.world.sprites import ArtistUnavailable

    bad_input = (AnswersMismatch, ArtistUnavailable, ConfigError, DatasetError, DisagreementError,
                 JoinError, PolicyError, PromptError, SourceError, WorkdirError)
    gave_up = (CheckpointError, DataEndedError, DiskFullError, EngineError, IncompleteBuild,
               LogpGapError, NonFiniteError, PeerError, RewardError, RollCallError)
    if isinstance(error, bad_input + gave_up):
        return fail(verb, error, status=2 if isinstance(error, bad_input) else 1)
    if isinstance(error, Preempted):
        name = signal.Signals(error.signum).name
        return fail(verb, f"stopped by {name} with everything saved; the same command goes on "
                    "from here", status=error.code)
    if isinstance(error, Exception) and is_full_disk(error):    # it comes in many guises
        return fail(verb, f"the disk is full: {_last_line(error)}. Free some space and give "
                    "the command again", status=1)
    if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
        return fail(verb, f"process {jax.process_index()} cannot go on, most likely because "
                    f"another one ended; see the others' logs: {_last_line(error)}", status=1)
    return fail(verb, error) if isinstance(error, OSError) else None


def _last_line(error: Exception) -> str:
    return str(error).strip().split("\n")[-1]
