"""A model directory as a guard: pictures and a policy in, raw answers out."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import guardjax.models as models
from guardjax.data.batching import Batcher, load_batcher
from guardjax.data.prompts import JUDGE_QUESTION
from guardjax.rl.model_fns import ModelFns, bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PolicyExample, PromptBatch, Samples

MAX_ANSWER_TOKENS = 32


@dataclasses.dataclass(eq=False)
class Guard:
    """A model that answers. Decoding is greedy, so the same prompt gives the same answer.

    Attributes:
      fns, params, batcher: the model; see `guardjax.models` and `guardjax.data.batching`.
      vocab_size: width of the logits.
      batch: prompts of one forward pass; short batches are padded to it, so few programs compile.
      model_hash: 16 hex digits of SHA-256 over the weights file, "" for a model in memory.
      num_programs: programs compiled so far; at most `num_buckets`.
    """

    fns: ModelFns
    params: Any
    batcher: Batcher
    vocab_size: int
    batch: int = 64
    model_hash: str = ""

    def __post_init__(self) -> None:
        tokenizer = self.batcher.tokenizer
        sampling = SamplingParams(
            1, MAX_ANSWER_TOKENS, tokenizer.end_id, tokenizer.pad_id, greedy=True)
        unused = range(tokenizer.vocab_size, self.vocab_size)
        transform = make_transform(
            self.vocab_size, blocked=[*tokenizer.forbidden_ids(), *unused])
        self.num_programs = 0

        def answer(params: Any, prompts: PromptBatch) -> Samples:
            self.num_programs += 1      # Python runs while tracing only
            return generate(self.fns, params, prompts, jax.random.key(0), sampling, transform)

        self._answer = jax.jit(answer)

    @property
    def num_buckets(self) -> int:
        """How many programs there can be at most: one a shape of prompts and of pictures."""
        return len(self.batcher.prompt_buckets) * (1 + len(self.batcher.patch_buckets))

    @classmethod
    def load(cls, path: str | pathlib.Path, batch: int = 64, *, dtype: str = "float32",
             attention: str = "xla") -> Guard:
        """Reads a model directory, to be computed in `dtype` with a back end of attention.

        Raises:
          WeightsError, TokenizerError, FileNotFoundError: the directory is not a whole model.
          AttentionError: the back end cannot do this model here.
        """
        path = pathlib.Path(path)
        cfg, params = models.load_hf(path)
        cfg = dataclasses.replace(cfg, dtype=dtype, attention=attention)
        models.attention_backend(cfg)
        return cls(bind(models, cfg), params, load_batcher(path), cfg.text.vocab_size, batch,
                   weights_hash(path))

    def answer_examples(self, examples: Sequence[PolicyExample]) -> list[tuple[str, bool]]:
        """(text, truncated) of each example. Pictures and word-only prompts may be mixed."""
        answers: dict[int, tuple[str, bool]] = {}
        for has_image in (True, False):
            places = [i for i, e in enumerate(examples) if (e.image is not None) == has_image]
            for start in range(0, len(places), self.batch):
                chosen = places[start:start + self.batch]
                texts = self._answer_batch([examples[i] for i in chosen])
                answers.update(zip(chosen, texts, strict=True))
        return [answers[i] for i in range(len(examples))]

    def answer(self, images: Sequence[np.ndarray], policy_text: str) -> list[tuple[str, bool]]:
        """(text, truncated) for each picture [H, W, 3] uint8 under one policy."""
        return self.answer_examples([
            PolicyExample(example_id=f"picture {i}", kind="judge", question=JUDGE_QUESTION,
                          policy_text=policy_text, image=image)
            for i, image in enumerate(images)])

    def _answer_batch(self, examples: list[PolicyExample]) -> list[tuple[str, bool]]:
        num = len(examples)
        padded = examples + [examples[-1]] * (self.batch - num)
        samples = jax.device_get(self._answer(self.params, self.batcher.prompts(padded)))
        decode = self.batcher.tokenizer.decode
        return [(decode(samples.tokens[i, 0, :samples.length[i, 0]]), not samples.ended[i, 0])
                for i in range(num)]


def weights_hash(path: str | pathlib.Path) -> str:
    """16 hex digits of SHA-256 over the safetensors files of a model directory.

    Raises:
      FileNotFoundError: it has none.
    """
    digest = hashlib.sha256()
    files = sorted(pathlib.Path(path).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path} holds no model: it has no .safetensors file")
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as opened:
            while piece := opened.read(2**22):      # a shard may be larger than the memory
                digest.update(piece)
    return digest.hexdigest()[:16]
