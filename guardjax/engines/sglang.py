"""SGLang's own HTTP server: `/generate` with token ids, and `/update_weights_from_disk`.

Read in SGLang's documentation of 2026 and in the sources of SGLang-JAX of 21 August 2026. The
latter speaks the same protocol, but as it was then it could not be trained with: it had no
`/update_weights_from_disk`, and did not heed `logit_bias`. Connecting finds both out.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.engines.answer import Answer, AnswerError
from guardjax.engines.http import Server
from guardjax.engines.prompt import EnginePrompt
from guardjax.rl.engine import Decoding, EngineError


@dataclasses.dataclass(frozen=True)
class SglangWire:
    """See `protocol.Wire`."""

    server: Server

    def ping(self) -> None:
        """See `Wire`."""
        self.server.tell("/health")

    def model_folders(self) -> tuple[str, str]:
        """See `Wire`."""
        info = self._info()
        return info["model_path"], info.get("tokenizer_path") or info["model_path"]

    def encode(self, text: str) -> list[int]:
        """See `Wire`: the ids that the log-probabilities of a prompt are told with."""
        reply = self.server.post("/generate", {
            "text": text, "return_logprob": True, "logprob_start_len": 0,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0}})
        try:
            return [entry[1] for entry in reply["meta_info"]["input_token_logprobs"]]
        except (KeyError, TypeError, IndexError) as error:
            raise EngineError(f"{self.server} does not tell the ids of a prompt "
                              f"(input_token_logprobs): {str(reply)[:300]}") from error

    def load(self, folder: pathlib.Path, version: str) -> None:
        """See `Wire`."""
        reply = self.server.post("/update_weights_from_disk", {
            "model_path": str(folder), "weight_version": version, "flush_cache": True})
        if not isinstance(reply, dict) or reply.get("success") is not True:
            raise EngineError(f"{self.server} could not read the weights: {str(reply)[:300]}")
        self.server.tell("/flush_cache", {})

    def version(self) -> str:
        """See `Wire`."""
        info = self._info()
        if "weight_version" not in info:
            raise EngineError(f"{self.server} does not tell which weights it has: /get_model_info "
                              "has no weight_version; take a newer SGLang")
        return info["weight_version"]

    def complete(self, prompt: EnginePrompt, seed: int, decoding: Decoding,
                 bias: Mapping[int, float]) -> Answer:
        """See `Wire`."""
        sampling = decoding.sampling
        body: dict[str, Any] = {
            "return_logprob": True, "return_text_in_logprobs": False, "stream": False,
            "sampling_params": {
                "n": 1, "sampling_seed": seed, "max_new_tokens": sampling.max_tokens,
                "temperature": 0.0 if sampling.greedy else decoding.temperature,
                "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
                "presence_penalty": 0.0, "frequency_penalty": 0.0,
                "stop_token_ids": [stop[0] for stop in sampling.stops if len(stop) == 1],
                "logit_bias": {str(token): value for token, value in bias.items()},
                "skip_special_tokens": False, "no_stop_trim": True}}
        body |= ({"text": prompt.text, "image_data": [prompt.data_url]} if prompt.png
                 else {"input_ids": list(prompt.ids)})
        reply = self.server.post("/generate", body)
        if isinstance(reply, list):
            raise AnswerError(f"asked for 1 completion and got {len(reply)}")
        try:
            meta = reply["meta_info"]
            # Of every token that was sampled, also where `output_ids` leaves out the end.
            pairs = meta["output_token_logprobs"]
            return Answer(
                tokens=[pair[1] for pair in pairs], logps=[pair[0] for pair in pairs],
                finish=meta["finish_reason"]["type"], prompt=meta["prompt_tokens"],
                version=meta.get("weight_version"))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise AnswerError(
                f"/generate answered without {error}: {str(reply)[:300]}; meta_info must have "
                "output_token_logprobs, finish_reason and prompt_tokens") from error

    def _info(self) -> dict[str, Any]:
        info = self.server.get("/get_model_info")
        if not isinstance(info, dict) or "model_path" not in info:
            raise EngineError(f"{self.server} does not say what it serves: /get_model_info "
                              f"answered {str(info)[:300]}; is it SGLang's server?")
        return info
