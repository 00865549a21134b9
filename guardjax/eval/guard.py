"""A model directory as a guard: pictures and a policy in, raw answers out."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import guardjax.models as models
from guardjax.data.batching import Batcher, load_batcher
from guardjax.data.branching import branch_prompts, part_buckets
from guardjax.data.prompts import JUDGE_QUESTION, PromptError, check_template
from guardjax.eval.grouping import MAX_BRANCHES, plan_batches
from guardjax.eval.scoring import (
    REASONED,
    AnswerTokens,
    Reply,
    Score,
    Scoring,
    answer_tokens,
    read_score,
    say_score,
)
from guardjax.models import turned
from guardjax.models.shards import stored_dtype
from guardjax.rl.logprobs import next_token_logits
from guardjax.rl.model_fns import ModelFns, bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import Array, PolicyExample, PromptBatch, Samples


@dataclasses.dataclass(eq=False)
class Guard:
    """A model that answers. Decoding is greedy, so the same prompt gives the same answer.

    Prompts that begin alike (one picture under several policies, or with the template
    `policy_first` one policy over several pictures) branch from one trunk, which goes through the
    model once.

    Attributes:
      fns, params, batcher: the model; see `guardjax.models` and `guardjax.data.batching`.
      vocab_size: width of the logits.
      batch: prompts of one forward pass; short batches are padded to it, so few programs compile.
      model_hash: 16 hex digits of SHA-256 over the weights file, "" for a model in memory.
      scoring: how answers are asked for and read.
      branches: prompts of one trunk at most; 1 sends every prompt through whole.
      num_programs: programs compiled so far; at most `num_buckets` for each M that is used.
    """

    fns: ModelFns
    params: Any
    batcher: Batcher
    vocab_size: int
    batch: int = 64
    model_hash: str = ""
    scoring: Scoring = Scoring()
    branches: int = MAX_BRANCHES

    def __post_init__(self) -> None:
        tokenizer = self.batcher.tokenizer
        sampling = SamplingParams(
            1, self.batcher.answer_limit, tokenizer.end_id, tokenizer.pad_id, greedy=True)
        unused = range(tokenizer.vocab_size, self.vocab_size)
        transform = make_transform(
            self.vocab_size, blocked=[*tokenizer.forbidden_ids(), *unused])
        self.num_programs = 0
        self._used: set[int] = set()
        written = self.scoring.mode == REASONED
        self._decided_by = AnswerTokens((), 0, 0) if written else answer_tokens(
            tokenizer.untrusted)
        pair = jnp.array([self._decided_by.safe, self._decided_by.unsafe])

        def answer(params: Any, prompts: PromptBatch) -> Samples:
            self.num_programs += 1      # Python runs while tracing only
            return generate(self.fns, params, prompts, jax.random.key(0), sampling, transform)

        def decide(params: Any, prompts: PromptBatch) -> tuple[Array, Array]:
            """(log-probabilities of safe and unsafe [B, 2], the likeliest allowed token [B])."""
            self.num_programs += 1
            logits = next_token_logits(self.fns, params, prompts)
            return jax.nn.log_softmax(logits)[:, pair], jnp.argmax(transform(logits), axis=-1)

        self._ask = jax.jit(answer if written else decide)

    @property
    def num_buckets(self) -> int:
        """How many programs there can be at most: one a shape of prompts and of pictures."""
        pictures = 1 + len(self.batcher.patch_buckets)
        parts = len(part_buckets(self.batcher))
        return pictures * sum(
            len(self.batcher.prompt_buckets) if branches == 1 else parts**2
            for branches in self._used or {1})

    @classmethod
    def load(cls, path: str | pathlib.Path, batch: int = 64, *, dtype: str = "float32",
             attention: str = "xla", scoring: Scoring = Scoring(),
             template: str | None = None) -> Guard:
        """Reads a model directory, to be computed in `dtype` with a back end of attention.

        Args:
          path: the directory.
          batch: prompts of one forward pass.
          dtype: the compute type.
          attention: the back end.
          scoring: how answers are asked for and read.
          template: the order of picture and policy that is asked for; None takes the model's own.

        Raises:
          WeightsError, TokenizerError, FileNotFoundError: the directory is not a whole model.
          AttentionError: the back end cannot do this model here.
          PromptError: the model was trained with another template than the one asked for.
          ScoringError: the tokenizer cannot do this scoring.
        """
        path = pathlib.Path(path)
        batcher = load_batcher(path)
        if template is not None:
            check_trained_as(path, batcher.template, template)
        # What is stored in the compute type is kept so: the sums are the same, in half the memory.
        kept = dtype if stored_dtype(path) == dtype else "float32"
        cfg, params = models.load_hf(path, dtype=kept, turned=turned.helps(dtype))
        cfg = dataclasses.replace(cfg, dtype=dtype, attention=attention)
        models.attention_backend(cfg)
        return cls(bind(models, cfg), models.round_once(params, cfg), batcher,
                   cfg.text.vocab_size, batch, weights_hash(path), scoring)

    def answer_examples(self, examples: Sequence[PolicyExample]) -> list[Reply]:
        """The answer to each example. Pictures and word-only prompts may be mixed."""
        replies: dict[int, Reply] = {}
        for places, found in self.answer_batches(examples):
            replies.update(zip(places, found, strict=True))
        return [replies[place] for place in range(len(examples))]

    def answer_batches(self, examples: Sequence[PolicyExample], answered: Container[int] = ()
                       ) -> Iterator[tuple[list[int], list[Reply]]]:
        """The answers as they come: (places in `examples`, their answers), a batch at a time.

        A batch whose places are all `answered` is left out. Which prompts go together follows from
        `examples` alone, so that whoever goes on from some answers has the padding, and with it
        the bits, of whoever asks everything.
        """
        for group in plan_batches(
                examples, self.batcher.template, self.batch, self.branches):
            if all(place in answered for place in group.places):
                continue
            found = self._answer_batch([examples[p] for p in group.shown], group.branches)
            replies = dict(zip(group.places, found))    # a run that was filled up has places twice
            yield list(replies), list(replies.values())

    def answer(self, images: Sequence[np.ndarray], policy_texts: Sequence[str]) -> list[Reply]:
        """The answer for each picture [H, W, 3] uint8 under the policy that is given with it.

        A picture under several policies, given as one array, is encoded once; so is, with the
        template `policy_first`, a policy that is shown several pictures.
        """
        return self.answer_examples([
            PolicyExample(example_id=f"picture {i}", kind="judge", question=JUDGE_QUESTION,
                          policy_text=text, image=image)
            for i, (image, text) in enumerate(zip(images, policy_texts, strict=True))])

    def _answer_batch(self, examples: list[PolicyExample], branches: int) -> list[Reply]:
        self._used.add(branches)
        begun = self._decided_by.begun
        prompts = (self.batcher.prompts(examples, begun=begun) if branches == 1 else
                   branch_prompts(self.batcher, examples, branches, begun=begun))
        found = jax.device_get(self._ask(self.params, prompts))
        read = _prompt_lengths(prompts)
        decode = self.batcher.tokenizer.decode
        if self.scoring.mode == REASONED:
            return [Reply(decode(tokens[:length]), not ended, None, None, shown, int(length))
                    for tokens, length, ended, shown in zip(
                        found.tokens[:, 0], found.length[:, 0], found.ended[:, 0], read,
                        strict=True)]
        replies = []
        for logp, token, shown in zip(*found, read, strict=True):
            # The logistic of the difference: the softmax over the two, whatever they are of all.
            p_unsafe = 1 / (1 + np.exp(np.clip(np.float64(logp[0]) - logp[1], -700, 700)))
            score = Score(float(p_unsafe), float(np.exp(np.float64(logp)).sum()), int(token),
                          decode([token]))
            verdict = read_score(score, self._decided_by, self.scoring)
            replies.append(Reply(say_score(score, self.scoring), False, verdict, score, shown, 0))
        return replies


def _prompt_lengths(prompts: PromptBatch) -> list[int]:
    """Tokens of each of the B prompts, its trunk's among them."""
    lengths = np.asarray(prompts.prompt.mask).sum(axis=-1)
    if prompts.trunk is not None:
        lengths = lengths + np.asarray(prompts.trunk.mask).sum(axis=-1)[:, None]
    return lengths.ravel().tolist()


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


def check_trained_as(path: pathlib.Path, trained: str, asked: str) -> None:
    """Checks that a model is asked in the order that it was trained with.

    Raises:
      PromptError: there is no such template, or it is another one than the model's.
    """
    check_template(asked)
    if trained != asked:
        raise PromptError(
            f"{path} was trained with template {trained!r}; asked with {asked!r} it would read "
            f"prompts in an order that it never saw. Leave the template out, or train it with "
            f"template={asked!r}")
