"""JSON over HTTP to one server: every call within a time, every failure with a name."""

from __future__ import annotations

import dataclasses
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from guardjax.rl.engine import EngineError

_EXCERPT = 300      # characters of a server's own words in an error


class ServerLost(ConnectionError):
    """No answer, though none was refused either: the same call may succeed later.

    `status` is that of a server which answered that it failed (5xx), None of one that is silent.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
      name: what errors call it, "vllm" or "sglang".
      url: "http://host:port".
      seconds: what one call may take.
    """

    name: str
    url: str
    seconds: float

    def __str__(self) -> str:
        return f"engine {self.name} at {self.url}"

    def get(self, path: str) -> Any:
        """The JSON at `path`. Raises as `post`."""
        return self._json(path, self._call(path, None))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers `body`.

        Raises:
          ServerLost: nobody listens, the connection broke, or the server failed (status 5xx).
          EngineError: the server refuses the call (status 4xx), takes longer than `seconds`, or
            answers with something else than JSON.
        """
        return self._json(path, self._call(path, json.dumps(body).encode()))

    def tell(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Posts `body`, or asks without one, where only the status counts. Raises as `post`."""
        self._call(path, None if body is None else json.dumps(body).encode())

    def _call(self, path: str, data: bytes | None) -> bytes:
        request = urllib.request.Request(
            self.url.rstrip("/") + path, data, {"Content-Type": "application/json"})
        # An engine stands beside the trainer: no proxy of the environment's is between them.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + self.seconds
        try:
            with opener.open(request, timeout=self.seconds) as response:
                return self._read(response, deadline)
        except urllib.error.HTTPError as error:
            words = error.read(_EXCERPT).decode("utf-8", "replace").strip()
            if error.code >= 500:
                raise ServerLost(f"{path} answered {error.code}: {words}", error.code) from error
            raise EngineError(f"{self} refuses {path} with status {error.code}: {words}") from error
        except TimeoutError as error:
            raise self._slow(path) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise self._slow(path) from error
            raise ServerLost(f"{path}: {getattr(error, 'reason', error) or error!r}") from error

    def _json(self, path: str, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise EngineError(f"{self}: {path} did not answer with JSON but with "
                              f"{text[:_EXCERPT]!r}; is it an engine that listens there?"
                              ) from error

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        """All of the body; a server that sends a little now and then is slow, too."""
        parts = []
        while part := response.read1(1 << 16):
            parts.append(part)
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.length:             # a body that ends too early
            raise http.client.IncompleteRead(parts[-1] if parts else b"", response.length)
        return b"".join(parts)

    def _slow(self, path: str) -> EngineError:
        return EngineError(f"{self}: {path} took longer than {self.seconds:g} s; give it more "
                           "(rl.engine_seconds), or ask for fewer answers at a time "
                           "(rl.engine_requests)")
