"""A server that speaks vLLM's or SGLang's protocol and answers with the local model.

It renders chats with the tokenizer's own template and cuts pictures from the PNG that it was sent,
as the real ones do, so that nothing of what it computes comes from the client's arrays.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import http.server
import io
import json
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from guardjax import layout, models
from guardjax.data.batching import load_batcher
from guardjax.data.images import to_patches
from guardjax.data.tokenizer import IMAGE_PAD
from guardjax.rl.answers import last_hidden
from guardjax.rl.decoding import Start
from guardjax.rl.draw import draw
from guardjax.rl.lockstep import decode_together
from guardjax.rl.model_fns import bind, encode_vision
from guardjax.rl.sampling import SamplingParams
from guardjax.types import PromptBatch, Segment

Reply = dict[str, Any]


class Drop(Exception):
    """The connection is closed without an answer."""


@functools.cache
def decoder(cfg: Any, end_id: int, pad_id: int) -> Callable[..., Any]:
    """One compiled answer to one prompt; shared by all servers of a model."""
    fns = bind(models, cfg)

    @functools.partial(jax.jit, static_argnames=("greedy", "max_tokens"))
    def decode(params, prompts, key, bias, temperature, *, greedy, max_tokens):
        def transform(logits):
            return (logits.astype(jnp.float32) + bias) / temperature

        sampling = SamplingParams(1, max_tokens, end_id, pad_id, greedy=greedy)
        vision = encode_vision(fns, params, prompts)
        (hidden,), cache = fns.forward(params, (prompts.prompt,), vision, None)
        logits = transform(fns.unembed(params, last_hidden(hidden, prompts.prompt.mask)))
        keys = key[None, None]
        first = draw(keys, jnp.int32(0), logits, greedy=greedy)
        limit = jnp.full((1, 1), max_tokens, jnp.int32)
        return decode_together(
            fns, params, Start(prompts, cache, keys, first, limit), sampling, transform)

    return decode


@dataclasses.dataclass
class Behaviour:
    """What a server does otherwise than it should; the default is a good one."""

    heeds_bias: bool = True
    raw_logprobs: bool = False          # of one bias-free distribution, as vLLM's default
    tells_version: bool = True
    refuses_weights: bool = False
    shown_folder: str | None = None     # what it says that it serves
    extra_pixels: int = 0               # of the picture, added before it is cut
    mangle: Callable[[Reply], Reply] = lambda reply: reply      # every completion
    before: Callable[[int], None] = lambda number: None         # every completion, numbered from 1


class FakeEngine:
    """One server on 127.0.0.1; use `running`."""

    def __init__(self, kind: str, folder: pathlib.Path, behaviour: Behaviour | None = None,
                 tokenizer: Any = None) -> None:
        self.kind, self.folder = kind, folder
        self.behaviour = behaviour or Behaviour()
        self.cfg, self.start_params = models.load_hf(folder)
        self.batcher = load_batcher(folder)
        self.tokenizer = tokenizer or self.batcher.tokenizer
        self.keys: dict[int, jax.Array] = {}    # by seed, where a test wants others
        self.asked: list[dict[str, Any]] = []   # completions, as they came
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0
        self.restart_weights()

    def restart_weights(self) -> None:
        """What a new process has."""
        self.params, self.version = self.start_params, "default"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:       # noqa: N802
                self._answer({})

            def do_POST(self) -> None:      # noqa: N802
                size = int(self.headers["Content-Length"])
                self._answer(json.loads(self.rfile.read(size)))

            def _answer(self, body: dict[str, Any]) -> None:
                try:
                    status, reply = engine.route(self.path, body)
                except Drop:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more; safe from within a request."""
        server, self._server = self._server, None
        if server is not None:
            threading.Thread(target=server.shutdown, daemon=True).start()
            server.server_close()

    def route(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self._server is None:
            raise Drop
        self.paths.append(path)
        if path == "/health":
            return 200, ""
        routes = self._vllm() if self.kind == "vllm" else self._sglang()
        if path not in routes:
            return 404, {"detail": "Not Found"}
        return routes[path](body)

    def _vllm(self) -> dict[str, Callable[[dict[str, Any]], tuple[int, Any]]]:
        def tokenize(body):
            ids = self.tokenizer.trusted(body["prompt"])
            return 200, {"count": len(ids), "max_model_len": 512, "tokens": ids}

        def rpc(body):
            assert body["method"] == "reload_weights"
            return self._load(body["kwargs"]["weights_path"]) or (200, {"results": [None]})

        def set_version(body):
            self.version = body["new_version"]
            return 200, {"success": True, "new_version": self.version}

        routes = {
            "/v1/models": lambda body: (200, {"object": "list", "data": [
                {"id": "guard", "object": "model", "root": self._shown()}]}),
            "/tokenize": tokenize, "/collective_rpc": rpc,
            "/update_weight_version": set_version,
            "/weight_info": lambda body: (200, {"weight_version": self.version}),
            **{f"/reset_{name}_cache": lambda body: (200, "")
               for name in ("prefix", "mm", "encoder")},
            "/v1/completions": self._completion, "/v1/chat/completions": self._chat}
        if not self.behaviour.tells_version:
            del routes["/weight_info"]
        return routes

    def _sglang(self) -> dict[str, Callable[[dict[str, Any]], tuple[int, Any]]]:
        def update(body):
            failed = self._load(body["model_path"])
            if failed:
                return 400, {"success": False, "message": failed[1]["error"]}
            self.version = body["weight_version"]
            return 200, {"success": True, "message": "Succeeded to update model weights."}

        def info(body):
            told = {"weight_version": self.version} if self.behaviour.tells_version else {}
            return 200, {"model_path": self._shown(), "tokenizer_path": self._shown(),
                         "is_generation": True, **told}

        return {"/get_model_info": info, "/update_weights_from_disk": update,
                "/flush_cache": lambda body: (200, "Cache flushed.\n"),
                "/generate": self._generate}

    def _shown(self) -> str:
        return self.behaviour.shown_folder or str(self.folder)

    def _load(self, folder: str) -> tuple[int, Any] | None:
        if self.behaviour.refuses_weights:
            return 500, {"error": "KeyError: 'visual.merger'"}
        with self._lock:
            self.params = models.load_hf(folder)[1]
        return None

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert body["logprobs"] == 0 and body["return_token_ids"]
        tokens, logps, finish = self._complete(body, body["prompt"], None, body)
        return 200, self.behaviour.mangle({"object": "text_completion", "choices": [{
            "index": 0, "text": self.tokenizer.decode(tokens), "finish_reason": finish,
            "token_ids": tokens, "prompt_token_ids": body["prompt"], "logprobs": {
                "tokens": [str(token) for token in tokens], "token_logprobs": logps}}]})

    def _chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert body["logprobs"] is True and body["return_token_ids"]
        urls, messages = [], []
        for message in body["messages"]:
            content = message["content"]
            if isinstance(content, list):
                urls += [part["image_url"]["url"] for part in content
                         if part["type"] == "image_url"]
                content = [part if part["type"] == "text" else {"type": "image"}
                           for part in content]
            messages.append({"role": message["role"], "content": content})
        text = self.tokenizer.inner.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=body["add_generation_prompt"])
        ids, picture = self._with_picture(text, urls[0])
        tokens, logps, finish = self._complete(body, ids, picture, body)
        return 200, self.behaviour.mangle({
            "object": "chat.completion", "prompt_token_ids": ids, "choices": [{
                "index": 0, "message": {"role": "assistant",
                                        "content": self.tokenizer.decode(tokens)},
                "finish_reason": finish, "token_ids": tokens, "logprobs": {"content": [
                    {"token": str(token), "logprob": logp, "bytes": [], "top_logprobs": []}
                    for token, logp in zip(tokens, logps, strict=True)]}}]})

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        params = body["sampling_params"]
        if "logprob_start_len" in body:
            ids = self.tokenizer.trusted(body["text"])
            return 200, {"text": "", "meta_info": {
                "prompt_tokens": len(ids),
                "input_token_logprobs": [[None if i == 0 else -1.0, token, None]
                                         for i, token in enumerate(ids)]}}
        assert body["return_logprob"] is True
        picture = None
        if "image_data" in body:
            ids, picture = self._with_picture(body["text"], body["image_data"][0])
        else:
            ids = body["input_ids"]
        tokens, logps, finish = self._complete(body, ids, picture, {
            "max_tokens": params["max_new_tokens"], "seed": params.get("sampling_seed", 0),
            **params})
        reason = ({"type": "stop", "matched": tokens[-1]} if finish == "stop"
                  else {"type": "length", "length": len(tokens)})
        return 200, self.behaviour.mangle({
            "text": self.tokenizer.decode(tokens), "output_ids": tokens, "meta_info": {
                "id": "1", "finish_reason": reason, "prompt_tokens": len(ids),
                "completion_tokens": len(tokens), "weight_version": self.version,
                "output_token_logprobs": [[logp, token, None] for token, logp in
                                          zip(tokens, logps, strict=True)]}})

    def _with_picture(self, text: str, url: str) -> tuple[list[int], np.ndarray]:
        head, data = url.split(",", 1)
        assert head == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        pixels = np.pad(pixels, ((0, self.behaviour.extra_pixels), (0, 0), (0, 0)))
        _, grid = to_patches(pixels, self.batcher.patches)
        units = grid[1] * grid[2] // self.batcher.patches.merge_size**2
        return self.tokenizer.trusted(text.replace(IMAGE_PAD, IMAGE_PAD * units)), pixels

    def _prompt(self, ids: list[int], pixels: np.ndarray | None) -> PromptBatch:
        """The arrays of one prompt, from ids and pixels alone."""
        batcher, pad = self.batcher, self.tokenizer.image_pad_id
        flat, grids = None, ()
        if pixels is not None:
            flat, grid = to_patches(pixels, batcher.patches)
            grids = (grid,)
        merge = batcher.patches.merge_size
        vision = layout.vision_layout(grids, window_units=batcher.window_units, merge=merge)
        size, num = layout.bucket(len(ids), batcher.prompt_buckets), len(ids)
        tokens = np.full((1, size), self.tokenizer.pad_id, np.int32)
        positions, mask = np.zeros((1, size, 3), np.int32), np.zeros((1, size), bool)
        features, next_pos = np.full((1, size), -1, np.int32), np.zeros(1, np.int32)
        tokens[0, :num], mask[0, :num] = ids, True
        positions[0, :num], next_pos[0] = layout.mrope_positions(
            tokens[0, :num], grids, image_token_id=pad, merge=merge)
        features[0, :num] = layout.feature_index(tokens[0, :num], vision, image_token_id=pad)
        pictures = None
        if pixels is not None:
            slots = layout.bucket(vision.num_slots, batcher.patch_buckets)
            pictures = layout.pack_vision([vision], [flat], slots, batcher.patches.patch_dim)
        return PromptBatch(Segment(tokens, positions, mask, None if pictures is None else features),
                           next_pos, pictures)

    def _complete(self, body: dict[str, Any], ids: list[int], pixels: np.ndarray | None,
                  params: dict[str, Any]) -> tuple[list[int], list[float], str]:
        with self._lock:
            self.asked.append(body)
            number = len(self.asked)
        self.behaviour.before(number)
        bias = np.zeros(self.cfg.text.vocab_size, np.float32)
        if self.behaviour.heeds_bias:
            for token, value in params["logit_bias"].items():
                bias[int(token)] = value
        greedy, seed = params["temperature"] == 0, params["seed"]
        key = self.keys.get(seed)
        with self._lock:
            weights, limit = self.params, params["max_tokens"]
            tokens, logps, length, ended = self._decode(
                weights, ids, pixels, jax.random.key(seed) if key is None else key, bias,
                1.0 if greedy else params["temperature"], greedy, limit)
            if self.behaviour.raw_logprobs:
                logps = logps - 3.0     # as if of a distribution that is not forced
        assert self.tokenizer.end_id in params["stop_token_ids"]
        return (tokens[:length].tolist(), logps[:length].tolist(), "stop" if ended else "length")

    def _decode(self, weights, ids, pixels, key, bias, temperature, greedy, limit):
        decode = decoder(self.cfg, self.batcher.tokenizer.end_id, self.batcher.tokenizer.pad_id)
        found = jax.device_get(decode(
            weights, self._prompt(ids, pixels), key, bias, jnp.float32(temperature),
            greedy=greedy, max_tokens=limit))
        one = jax.tree.map(lambda leaf: leaf[0, 0], found)
        return one.tokens, one.logp, int(one.length), bool(one.ended)


@contextlib.contextmanager
def running(kind: str, folder: pathlib.Path, behaviour: Behaviour | None = None,
            tokenizer: Any = None) -> Iterator[FakeEngine]:
    """A server that listens until the block ends."""
    engine = FakeEngine(kind, folder, behaviour, tokenizer)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
