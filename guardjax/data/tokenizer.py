"""The tokenizer: Hugging Face files in, ids out; and how the tiny one of our own is trained.

Text is of two kinds. *Trusted* text is the template's own and may contain special tokens.
*Untrusted* text (a policy, a caption, an answer) is encoded with special tokens switched off, so
that no policy can speak with the voice of the template.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import tokenizers
import transformers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from guardjax.json_file import read_json, write_json

# Order and spelling are those of Qwen2.5-VL; the tiny tokenizer puts them after its own entries.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
END_OF_TURN = "<|im_end|>"
PAD = "<|endoftext|>"
IMAGE_PAD = "<|image_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"

# Tags of the verdict grammar and rule ids are single pre-tokens, so that a tiny model spends one
# step on `<answer>` and one on ` R2`. Real Qwen tokenizers split them; nothing depends on it.
_PRE_TOKEN = Regex(r"</?[a-z]+>| ?R[0-9]+| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}<]+| ?<|\s+")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class TokenizerError(ValueError):
    """A tokenizer directory that cannot serve a Qwen2.5-VL style guard."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A Hugging Face fast tokenizer with the ids a guard needs.

    Whether special tokens are recognised is a switch *inside* the fast tokenizer, which
    transformers flips from call to call: two threads sharing one would encode a policy with the
    template's rules. So each kind of text has an encoder of its own, set once.
    """

    inner: transformers.PreTrainedTokenizerFast
    end_id: int
    pad_id: int
    image_pad_id: int
    _trusted: tokenizers.Tokenizer
    _untrusted: tokenizers.Tokenizer

    @classmethod
    def of(cls, inner: transformers.PreTrainedTokenizerFast) -> Tokenizer:
        """Wraps a fast tokenizer that has the Qwen special tokens."""
        text = inner.backend_tokenizer.to_str()
        trusted, untrusted = (tokenizers.Tokenizer.from_str(text) for _ in range(2))
        trusted.encode_special_tokens = False
        untrusted.encode_special_tokens = True
        ids = inner.convert_tokens_to_ids([END_OF_TURN, PAD, IMAGE_PAD])
        return cls(inner, *ids, trusted, untrusted)

    def trusted(self, text: str) -> list[int]:
        """Ids of the template's own words; special tokens are recognised."""
        return self._trusted.encode(text, add_special_tokens=False).ids

    def untrusted(self, text: str) -> list[int]:
        """Ids of data; `<|im_end|>` and its like are ordinary characters here."""
        return self._untrusted.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion: up to the end token, which is not part of the text."""
        kept = []
        for token in ids:
            if int(token) == self.end_id:
                break
            kept.append(int(token))
        return self.inner.decode(kept, skip_special_tokens=False)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes Hugging Face files."""
        self.inner.save_pretrained(path)
        _drop_machine_details(pathlib.Path(path))

    def word_id(self, word: str) -> int:
        """The id of ` word`, which must be a single token.

        Raises:
          TokenizerError: the word takes several tokens.
        """
        ids = self.untrusted(" " + word)
        if len(ids) != 1:
            raise TokenizerError(
                f"the word {word!r} takes {len(ids)} tokens; seeing is trained on words of one "
                "token: add the word to the tokenizer's corpus or choose another name"
            )
        return ids[0]

    @property
    def digest(self) -> str:
        """16 hex digits of what turns text into ids, whatever the files are called."""
        text = self.inner.backend_tokenizer.to_str()
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def vocab_size(self) -> int:
        """Entries, special tokens included."""
        return len(self.inner)

    def forbidden_ids(self) -> list[int]:
        """Ids that must never be sampled: every special token but the end of the turn."""
        return sorted(
            token
            for text, token in self.inner.get_vocab().items()
            if text in SPECIAL_TOKENS and token != self.end_id
        )


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Reads a Hugging Face tokenizer directory.

    Raises:
      TokenizerError: the directory has no tokenizer, or one that cannot be read or lacks a Qwen
        special token.
    """
    path = pathlib.Path(path)
    if not (path / "tokenizer.json").is_file():
        raise TokenizerError(
            f"{path} has no tokenizer.json; pass a directory as Hugging Face saves it"
        )
    try:
        inner = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    except Exception as error:      # the reader in Rust raises bare exceptions
        raise TokenizerError(f"{path}: the tokenizer's files cannot be read (tokenizer.json, "
                             f"tokenizer_config.json): {error}") from error
    vocab = inner.get_vocab()
    missing = [t for t in (END_OF_TURN, PAD, IMAGE_PAD, VISION_START, VISION_END) if t not in vocab]
    if missing:
        raise TokenizerError(
            f"the tokenizer in {path} lacks {', '.join(missing)}; a Qwen2.5-VL style tokenizer "
            "has them"
        )
    return Tokenizer.of(inner)


def train_tokenizer(corpus: Iterable[str], vocab_size: int, path: str | pathlib.Path) -> Tokenizer:
    """Trains a byte-level BPE on `corpus` and writes it as Hugging Face files to `path`.

    Args:
      corpus: texts; every word that must be one token has to be frequent in it.
      vocab_size: entries at most, special tokens included.
      path: directory to write.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(_PRE_TOKEN, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TURN, pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    Tokenizer.of(fast).save(path)
    return load_tokenizer(path)


def _drop_machine_details(path: pathlib.Path) -> None:
    """Keeps the written files the same on every machine (no absolute paths)."""
    file = path / "tokenizer_config.json"
    config = read_json(file, TokenizerError)
    config.pop("name_or_path", None)
    write_json(file, config)
