"""An engine in another process: weights go by a folder, prompts and answers over HTTP."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from guardjax.data.batching import Batcher
from guardjax.engines.answer import AnswerError, Checked, as_samples, check_answer
from guardjax.engines.handshake import check_engine
from guardjax.engines.http import Server, ServerLost
from guardjax.engines.prompt import EnginePrompt, engine_prompt
from guardjax.engines.protocol import MOST_BIAS, Wire
from guardjax.engines.sglang import SglangWire
from guardjax.engines.vllm import VllmWire
from guardjax.engines.weights import WeightFolder
from guardjax.rl.engine import Decoding, EngineError
from guardjax.types import PolicyExample, PromptBatch, Samples

WIRES = {"vllm": VllmWire, "sglang": SglangWire}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0     # seconds between two tries

Place = tuple[int, int]     # prompt b, completion g


@dataclasses.dataclass(frozen=True)
class Limits:
    """How patient a run is with its engine.

    Attributes:
      seconds: what one answer may take.
      retry_seconds: how long, in one batch, a server that was lost is waited for.
      requests: answers asked for at a time.
    """

    seconds: float = 300.0
    retry_seconds: float = 120.0
    requests: int = 64


def connect(kind: Literal["vllm", "sglang"], url: str, *, weights: WeightFolder, batcher: Batcher,
            decoding: Decoding, limits: Limits = Limits()) -> RemoteEngine:
    """The engine at `url`, once it has shown that it can stand in for the local sampler.

    Raises:
      EngineError: nobody answers, or see `handshake.check_engine`.
    """
    wire = WIRES[kind](Server(kind, url, limits.seconds))
    try:
        check_engine(wire, weights.cfg, batcher, decoding)
    except ServerLost as error:
        raise EngineError(f"{wire.server} does not answer ({error}); start it first, with the "
                          "run's base, or correct rl.engine_url") from error
    return RemoteEngine(wire, weights, batcher, limits)


class RemoteEngine:
    """See `rl.engine.Engine`.

    A completion that is lost with its server is asked for again; those that came are kept, and the
    same seeds are asked with, so that a batch does not depend on what was lost.
    """

    def __init__(self, wire: Wire, weights: WeightFolder, batcher: Batcher, limits: Limits):
        """`wire` has been checked. What other runs left in the folder of weights goes."""
        self._wire, self._weights, self._batcher, self._limits = wire, weights, batcher, limits
        self._run = secrets.token_hex(4)    # no server has weights of this name yet
        self._loaded: tuple[pathlib.Path, str] | None = None
        self._waited = 0.0
        weights.clear()

    def load(self, params: Any, step: int) -> None:
        """See `Engine`."""
        version = f"{self._run}-{step}"
        try:
            self._loaded = self._weights.write(params, version), version
        except OSError as error:
            raise EngineError(f"step {step}: the weights for {self._wire.server} could not be "
                              f"written to {self._weights.root}: {error}") from error
        self._waited = 0.0
        while True:
            try:
                self._hand_over(step)
                break
            except ServerLost as error:
                self._wait(error, step)
        self._weights.keep_only(version)

    def sample(self, prompts: PromptBatch, examples: Sequence[PolicyExample], seeds: np.ndarray,
               decoding: Decoding, step: int) -> Samples:
        """See `Engine`."""
        if self._loaded is None:
            raise ValueError("an engine has no weights before the first `load`")
        asked = self._prompts(prompts, examples)
        missing: list[Place] = [(b, g) for b in range(len(asked)) for g in range(seeds.shape[1])]
        found: dict[Place, Checked] = {}
        self._waited = 0.0
        while missing:
            lost, late = self._ask_all(missing, asked, seeds, decoding, found, step)
            if lost is not None and self._wait_until_back(lost, step):
                for place in late:      # perhaps of the new process, before it had our weights
                    del found[place]
            missing = [place for place in missing if place not in found]
        try:
            self._check_version(step)
        except ServerLost as error:     # after its last answer
            self._wait_until_back(error, step)
        return as_samples(found, seeds.shape, decoding)

    def close(self) -> None:
        """See `Engine`."""
        self._weights.clear()

    def _prompts(self, prompts: PromptBatch, examples: Sequence[PolicyExample],
                 ) -> list[EnginePrompt]:
        tokens, mask = np.asarray(prompts.prompt.tokens), np.asarray(prompts.prompt.mask)
        return [engine_prompt(tokens[b][mask[b]], example.image, example.example_id or f"row {b}",
                              self._batcher.tokenizer, self._batcher.patches)
                for b, example in enumerate(examples)]

    def _ask_all(self, places: Iterable[Place], prompts: Sequence[EnginePrompt],
                 seeds: np.ndarray, decoding: Decoding, found: dict[Place, Checked], step: int,
                 ) -> tuple[ServerLost | None, list[Place]]:
        """Adds to `found` what comes.

        Returns:
          Why some did not come, None if all did; and those that came after the first loss.

        Raises:
          EngineError: an answer that is wrong, which asking again would not mend.
        """
        lost, late = None, []
        seen = threading.Event()        # that one was lost
        bias = {token: -MOST_BIAS for token in decoding.blocked}

        def ask(b: int, g: int) -> tuple[Checked, bool]:
            try:
                return self._ask(prompts[b], int(seeds[b, g]), decoding, bias), seen.is_set()
            except ServerLost:
                seen.set()
                raise

        pool = concurrent.futures.ThreadPoolExecutor(self._limits.requests)
        try:
            futures = {pool.submit(ask, *place): place for place in places}
            for future in concurrent.futures.as_completed(futures):
                b, g = futures[future]
                try:
                    found[b, g], is_late = future.result()
                except ServerLost as error:
                    lost = error
                except EngineError as error:
                    whose = f"{self._wire.server}, " if isinstance(error, AnswerError) else ""
                    raise EngineError(f"{whose}step {step}, example {prompts[b].name}, completion "
                                      f"{g}: {error}") from error
                else:
                    late += [(b, g)] if is_late else []
        finally:
            # Not waited for: the run that ends here has its state to save.
            pool.shutdown(wait=False, cancel_futures=True)
        return lost, late

    def _ask(self, prompt: EnginePrompt, seed: int, decoding: Decoding,
             bias: Mapping[int, float]) -> Checked:
        answer = self._wire.complete(prompt, seed, decoding, bias)
        if answer.finish == "abort":
            raise ServerLost("the engine broke the answer off")
        if answer.version not in (None, self._version):
            raise ServerLost(f"the engine answered with the weights {answer.version!r}")
        return check_answer(answer, prompt, decoding, self._weights.cfg.text.vocab_size)

    def _wait_until_back(self, lost: ServerLost, step: int) -> bool:
        """Waits for the server; returns whether it came back with other weights than ours.

        It then has ours again. A process that was started anew has those of its start.

        Raises:
          EngineError: it does not come back in time.
        """
        while True:
            self._wait(lost, step)
            try:
                self._wire.ping()
                restarted = self._wire.version() != self._version
                if restarted:
                    self._hand_over(step)
                return restarted
            except ServerLost as error:
                lost = error

    def _wait(self, lost: ServerLost, step: int) -> None:
        """A pause that grows with how long was waited.

        Raises:
          EngineError: too long by now.
        """
        if self._waited >= self._limits.retry_seconds:
            raise EngineError(
                f"{self._wire.server}, step {step}: lost ({lost}), and not back for "
                f"{self._limits.retry_seconds:g} s (rl.engine_retry_seconds). Nothing is lost: "
                "start the engine again and give the same command, which goes on with this step"
            ) from lost
        pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._waited))
        pause = min(pause, self._limits.retry_seconds - self._waited)
        time.sleep(pause)
        self._waited += pause

    @property
    def _version(self) -> str:
        return self._loaded[1]

    def _hand_over(self, step: int) -> None:
        folder, version = self._loaded
        try:
            self._wire.load(folder, version)
        except (EngineError, ServerLost) as error:
            if isinstance(error, ServerLost) and error.status != 500:
                raise
            raise EngineError(f"step {step}: {self._wire.server} did not take the weights in "
                              f"{folder}. "
                              f"{error}. Does its machine see that folder, and was vLLM started "
                              "with VLLM_SERVER_DEV_MODE=1?") from error
        self._check_version(step)

    def _check_version(self, step: int) -> None:
        """Raises `EngineError` if the engine has other weights than those handed over last."""
        found = self._wire.version()
        if found != self._version:
            raise EngineError(
                f"{self._wire.server}, step {step}: it has the weights {found!r} and should have "
                f"{self._version!r}; it was started anew in the middle of a batch, or another run "
                "uses it too. Nothing is lost: give the same command again, with an engine of "
                "its own for each run")
