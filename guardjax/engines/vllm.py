"""vLLM's HTTP server: OpenAI's completions with token ids, and its routes for training.

Read in vLLM's sources and documentation of July 2026. Needed there: `VLLM_SERVER_DEV_MODE=1` (the
routes `/collective_rpc`, `/reset_*`, `/update_weight_version` and `/weight_info`; the last two came
with pull request 49040) and `--logprobs-mode processed_logprobs`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.data.tokenizer import IMAGE_PAD, VISION_END, VISION_START
from guardjax.engines.answer import Answer, AnswerError, one_of
from guardjax.engines.http import Server
from guardjax.engines.prompt import EnginePrompt
from guardjax.rl.engine import Decoding, EngineError

_PICTURE = VISION_START + IMAGE_PAD + VISION_END
# Keys and values, processed pictures and image features of the weights before.
_STALE = ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache")


@dataclasses.dataclass(frozen=True)
class VllmWire:
    """See `protocol.Wire`."""

    server: Server

    def ping(self) -> None:
        """See `Wire`."""
        self.server.tell("/health")

    def model_folders(self) -> tuple[str, str]:
        """See `Wire`; vLLM does not tell where its tokenizer came from."""
        model = self._model()
        return model["root"], model["root"]

    def encode(self, text: str) -> list[int]:
        """See `Wire`."""
        return self._told(self.server.post("/tokenize", {
            "model": self._model()["id"], "prompt": text, "add_special_tokens": False}), "tokens")

    def load(self, folder: pathlib.Path, version: str) -> None:
        """See `Wire`."""
        self.server.tell("/collective_rpc", {
            "method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        for path in _STALE:
            self.server.tell(path, {})
        self.server.tell("/update_weight_version", {"new_version": version})

    def version(self) -> str:
        """See `Wire`."""
        return self._told(self.server.get("/weight_info"), "weight_version")

    def complete(self, prompt: EnginePrompt, seed: int, decoding: Decoding,
                 bias: Mapping[int, float]) -> Answer:
        """See `Wire`. A picture goes by the chat route, the only one that takes pictures."""
        sampling = decoding.sampling
        # All said: what is left out comes from the model's generation_config.json.
        body = {
            "n": 1, "seed": seed, "max_tokens": sampling.max_tokens,
            "temperature": 0.0 if sampling.greedy else decoding.temperature,
            "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "stop_token_ids": [stop[0] for stop in sampling.stops if len(stop) == 1],
            "logit_bias": {str(token): value for token, value in bias.items()},
            "return_token_ids": True, "skip_special_tokens": False}
        if prompt.png:
            path = "/v1/chat/completions"
            body |= {"messages": _messages(prompt), "logprobs": True, "top_logprobs": 0,
                     "add_generation_prompt": True, "add_special_tokens": False}
        else:
            path = "/v1/completions"
            body |= {"prompt": list(prompt.ids), "logprobs": 0}
        reply = self.server.post(path, body)
        try:
            choice = one_of(reply["choices"], "choices")
            return Answer(
                tokens=choice["token_ids"], logps=_logps(choice["logprobs"]),
                finish=choice["finish_reason"],
                prompt=reply.get("prompt_token_ids") or choice["prompt_token_ids"])
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise AnswerError(
                f"{path} answered without {error}: {str(reply)[:300]}; it must have token_ids, "
                "prompt_token_ids and logprobs") from error

    def _model(self) -> dict[str, Any]:
        models = self._told(self.server.get("/v1/models"), "data")
        if not models or not {"id", "root"} <= models[0].keys():
            raise EngineError(f"{self.server} serves no model: /v1/models has {models}")
        return models[0]

    def _told(self, reply: Any, key: str) -> Any:
        if not isinstance(reply, dict) or key not in reply:
            raise EngineError(f"{self.server} answered without {key!r}: {str(reply)[:300]}; is it "
                              "vLLM's server?")
        return reply[key]


def _logps(found: Any) -> list[float | None]:
    """Of both routes: a list of numbers, or of objects with one each. Raises `AnswerError`."""
    if not found:
        raise AnswerError("the answer has no log-probabilities")
    if "token_logprobs" in found:
        return list(found["token_logprobs"])
    return [entry["logprob"] for entry in found["content"]]


def _messages(prompt: EnginePrompt) -> list[dict[str, Any]]:
    """The turns of a prompt in Qwen's chat format; the engine's template joins them again.

    Raises:
      EngineError: a text of another form.
    """
    _, *turns = prompt.text.split("<|im_start|>")
    messages = []
    for turn in turns[:-1]:
        role, _, rest = turn.partition("\n")
        words, end, after = rest.rpartition("<|im_end|>")
        if not end or after != "\n":
            raise _no_chat(prompt)
        messages.append({"role": role, "content": _content(words, prompt)})
    if turns[-1:] != ["assistant\n"] or prompt.text.count(_PICTURE) != 1:
        raise _no_chat(prompt)
    return messages


def _content(words: str, prompt: EnginePrompt) -> Any:
    before, picture, after = words.partition(_PICTURE)
    if not picture:
        return words
    parts = [{"type": "text", "text": before},
             {"type": "image_url", "image_url": {"url": prompt.data_url}},
             {"type": "text", "text": after}]
    return [part for part in parts if part.get("text") != ""]


def _no_chat(prompt: EnginePrompt) -> EngineError:
    return EngineError(f"example {prompt.name}: its prompt is not in the chat format of Qwen with "
                       "one picture, in which vLLM takes pictures; sample with rl.engine='local'")
