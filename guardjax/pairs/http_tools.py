"""Assessor and editor behind a server that speaks OpenAI's protocol (extra `[pairs]`).

Most servers of open models do (vLLM, SGLang, LMDeploy), and most hosted ones. The client library
does timeouts and retries with growing pauses. Prompts are ours.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from guardjax.data.intake import IntakeError, load_picture
from guardjax.pairs.kept import png_bytes
from guardjax.pairs.tools import Assessment, ToolError, ToolUnavailable, read_assessment
from guardjax.policies import Policy

_ASSESS = """\
You check pictures against a policy. The policy:

{policy}

If nothing in the picture violates it, answer with the one word: safe
Otherwise answer with one short instruction to a picture editor that replaces what violates \
the policy by something harmless that fits in its place, rather than erasing it. Name the thing \
and its replacement. Answer with the instruction alone."""
_EDIT = """\
{instruction}. Change nothing else: keep size, faces, light, background and all other objects as \
they are."""
_CAPTION = """Describe what this picture shows, in at most three sentences."""
_RESTORE = """\
Here is a description of this picture:

{draft}

Write it again so that nothing which matters to the picture's safety is left out or played down: \
weapons, injuries, nudity, drugs, hateful signs, dangerous acts, and who does what to whom. Add \
only what is to be seen. Answer with the description alone."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
      url: up to and including the version, "http://localhost:8000/v1".
      model: its name there.
      key_variable: the environment variable that holds the key; a local server needs none.
      temperature: of sampling; attempt k asks with seed k.
      seconds: for one answer.
      retries: after a server's failure, with growing pauses.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.5
    seconds: float = 120.0
    retries: int = 2

    @property
    def identity(self) -> str:
        """What answers depend on, but for the prompts."""
        return f"{self.model} at {self.url}, temperature {self.temperature:g}"

    @functools.cached_property
    def client(self) -> Any:
        """The library's client, made when it is first needed.

        Raises:
          ToolUnavailable: the library is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise ToolUnavailable("the client library is missing: pip install 'guardjax[pairs]'"
                                  ) from error
        return openai.OpenAI(base_url=self.url, api_key=os.environ.get(self.key_variable, "none"),
                             timeout=self.seconds, max_retries=self.retries)


class HttpAssessor:
    """See `tools.Assessor`; a chat model that takes pictures."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.identity = f"{endpoint.identity}; {_ASSESS}; {_CAPTION}; {_RESTORE}"
        self._endpoint = endpoint

    def assess(self, picture: np.ndarray, policy: Policy, attempt: int = 0) -> Assessment:
        """See `tools.Assessor`."""
        return read_assessment(self._ask(
            picture, _ASSESS.format(policy=policy.render()), attempt))

    def caption(self, picture: np.ndarray) -> str:
        """See `tools.Assessor`."""
        return self._ask(picture, _CAPTION)

    def restore(self, picture: np.ndarray, draft: str) -> str:
        """See `tools.Assessor`."""
        return self._ask(picture, _RESTORE.format(draft=draft))

    def _ask(self, picture: np.ndarray, words: str, seed: int = 0) -> str:
        data = base64.b64encode(png_bytes(picture)).decode()
        content = [{"type": "text", "text": words},
                   {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]
        text = _called(self._endpoint, lambda client: client.chat.completions.create(
            model=self._endpoint.model, temperature=self._endpoint.temperature, seed=seed,
            max_tokens=512, messages=[{"role": "user", "content": content}],
        ).choices[0].message.content)
        if not text or not text.strip():
            raise ToolError(f"{self._endpoint.model} answered with nothing")
        return text.strip()


class HttpEditor:
    """See `tools.Editor`; a model that changes a picture by an instruction."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.identity = f"{endpoint.identity}; {_EDIT}"
        self._endpoint = endpoint

    def edit(self, picture: np.ndarray, instruction: str, attempt: int = 0) -> np.ndarray:
        """See `tools.Editor`."""
        del attempt     # the protocol has no seed for pictures: asking again is varying
        file = io.BytesIO(png_bytes(picture))
        file.name = "picture.png"
        data = _called(self._endpoint, lambda client: client.images.edit(
            model=self._endpoint.model, image=file, n=1, response_format="b64_json",
            prompt=_EDIT.format(instruction=instruction.rstrip(".")),
        ).data[0].b64_json)
        if not data:
            raise ToolError(f"{self._endpoint.model} answered without a picture (b64_json)")
        try:
            return load_picture(base64.b64decode(data, validate=True)).pixels
        except (binascii.Error, IntakeError) as error:
            raise ToolError(f"{self._endpoint.model} answered with no picture: {error}") from error


def _called(endpoint: Endpoint, call: Callable[[Any], Any]) -> Any:
    """What `call` takes from the client's answer; the library's errors as ours."""
    client = endpoint.client
    import openai

    where = f"{endpoint.model} at {endpoint.url}"
    try:
        return call(client)
    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError
            ) as error:
        raise ToolUnavailable(f"{where} refuses: {error}; check the model's name and the key in "
                              f"{endpoint.key_variable}") from error
    except openai.APITimeoutError as error:
        raise ToolError(f"{where} gave no answer within {endpoint.seconds:g} s") from error
    except openai.APIConnectionError as error:
        raise ToolUnavailable(f"nobody answers at {endpoint.url}: {error.__cause__ or error}"
                              ) from error
    except openai.OpenAIError as error:
        raise ToolError(f"{where}: {error}") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ToolError(f"{where} does not answer as the protocol says: {error}") from error
