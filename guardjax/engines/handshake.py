"""What is asked of an engine before anything is computed: one model, one tokenizer, one meaning."""

from __future__ import annotations

import dataclasses
import pathlib

from guardjax.data.batching import Batcher
from guardjax.data.processor import ProcessorError, load_processor
from guardjax.data.tokenizer import (IMAGE_PAD, SPECIAL_TOKENS, Tokenizer, TokenizerError,
                                     load_tokenizer)
from guardjax.engines.answer import AnswerError
from guardjax.engines.prompt import EnginePrompt
from guardjax.engines.protocol import MOST_BIAS, Wire
from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import read_config
from guardjax.rl.engine import Decoding, EngineError

# One entry in so many of a vocabulary is spelled out in a probe of the tokenizer.
_ENTRIES = 256
_TEXTS = (
    "policy: R1: No knives.\nR12: no weapons, except in kitchens.\ndoes it follow the policy?",
    "<answer>unsafe R1 R2</answer><think>A knife lies left.</think>",
    "  two spaces,\ttab,\r\nline;  0123456789 3.14 don't DON'T",
    "\u00e9\u00df\u4e2d\u6587\u0440\u0443 \U0001f600",
)
# A forced token is certain, so that its log-probability is 0 up to rounding.
_CERTAIN = -0.01


def check_engine(wire: Wire, cfg: ModelConfig, batcher: Batcher, decoding: Decoding) -> None:
    """That an engine can stand in for the local sampler.

    Raises:
      ServerLost: nobody answers.
      EngineError: another model, tokenizer or processor, or an engine that does not do what it is
        asked. What an image becomes there is checked with every prompt.
    """
    wire.ping()
    model, tokenizer = wire.model_folders()
    _check_folder(wire, model, tokenizer, cfg, batcher)
    _check_tokenizer(wire, batcher.tokenizer)
    wire.version()
    _check_bias(wire, batcher.tokenizer, decoding)


def _check_folder(wire: Wire, model: str, tokenizer: str, cfg: ModelConfig,
                  batcher: Batcher) -> None:
    """The folder that the engine was started with, which it shares with us as it does weights."""
    folder = pathlib.Path(model)
    if not (folder / "config.json").is_file():
        raise EngineError(f"{wire.server} serves {model!r}, which is no model folder here; start "
                          "it with the absolute path of the run's base, on a disk that both see")
    try:
        theirs, ours = read_config(folder).to_hf(), cfg.to_hf()
        other = sorted(key for key in theirs.keys() | ours.keys()
                       if theirs.get(key) != ours.get(key))
        if other:
            raise EngineError(f"{wire.server} serves {model}, another model than the one that is "
                              f"trained: its config.json differs in {', '.join(other)}; start it "
                              "with the run's base")
        if load_processor(folder) != batcher.patches:
            raise EngineError(f"{wire.server} serves {model}, whose processor makes other pictures "
                              "than ours (sizes, mean or std); start it with the run's base")
        if (load_tokenizer(pathlib.Path(tokenizer)).inner.get_vocab()
                != batcher.tokenizer.inner.get_vocab()):
            raise EngineError(_other_tokenizer(wire, f"{tokenizer} has another vocabulary"))
    except (ValueError, FileNotFoundError, ProcessorError, TokenizerError) as error:
        raise EngineError(f"{wire.server} serves {model}, which cannot be read: {error}") from error


def _check_tokenizer(wire: Wire, tokenizer: Tokenizer) -> None:
    """Asks the engine itself: it may have been started with a tokenizer of its own."""
    size = tokenizer.vocab_size
    some = tokenizer.inner.decode(list(range(0, size, max(1, size // _ENTRIES))),
                                  skip_special_tokens=True)
    # A placeholder without its picture is no prompt, and some engines only encode prompts. That
    # it is right shows in the first prompt with a picture.
    vocab = tokenizer.inner.get_vocab()
    special = [token for token in SPECIAL_TOKENS
               if token in vocab and token not in (IMAGE_PAD, "<|video_pad|>")]
    # What a decoder made up for half a letter is no text of the vocabulary.
    for text in (*_TEXTS, "".join(special), some.replace("\ufffd", "")):
        ours, theirs = tokenizer.trusted(text), wire.encode(text)
        if ours != theirs:
            raise EngineError(_other_tokenizer(
                wire, f"it makes {theirs[:12]}... of {text[:40]!r}, ours {ours[:12]}..."))


def _check_bias(wire: Wire, tokenizer: Tokenizer, decoding: Decoding) -> None:
    """That `logit_bias` decides what is sampled, and that log-probabilities are of what was.

    Two tokens, as one of them may be likely anyway.
    """
    one = dataclasses.replace(decoding, sampling=dataclasses.replace(
        decoding.sampling, max_tokens=1, stop=()), temperature=1.0)
    prompt = EnginePrompt("probe", tuple(tokenizer.trusted("<|im_start|>assistant\n")))
    for token in tokenizer.untrusted("safe")[:1] + tokenizer.untrusted("policy")[:1]:
        try:
            answer = wire.complete(prompt, 0, one, {token: MOST_BIAS})
        except AnswerError as error:
            raise EngineError(f"{wire.server}: {error}") from error
        if list(answer.tokens) != [token]:
            raise EngineError(f"{wire.server} does not heed logit_bias: asked for token {token} "
                              f"alone, it sampled {list(answer.tokens)}. Without it image "
                              "placeholders could be sampled; take a version that has it")
        if len(answer.logps) != 1 or answer.logps[0] is None or not answer.logps[0] >= _CERTAIN:
            raise EngineError(
                f"{wire.server} tells log-probabilities of another distribution than it samples "
                f"from: {list(answer.logps)} of a token that was certain. Start vLLM with "
                "--logprobs-mode processed_logprobs, and SGLang without "
                "SGLANG_RETURN_ORIGINAL_LOGPROB")


def _other_tokenizer(wire: Wire, what: str) -> str:
    return (f"{wire.server} has another tokenizer than the model that is trained: {what}. Start it "
            "with the run's base, and no tokenizer of its own")
