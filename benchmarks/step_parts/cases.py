"""The sizes that are timed, and the folder of model and prompts that both sides read."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import guardjax
import guardjax.models as models
from guardjax.data.batching import load_batcher, save_batcher
from guardjax.data.prompts import JUDGE_QUESTION, SYSTEM, encode_prompt
from guardjax.types import PolicyExample

BASE = pathlib.Path(guardjax.__file__).parent / "assets" / "base"
GROUP = 8
REAL_VOCAB = 151936
WORDS = ("dog", "knife", "cup", "show", "picture", "rule", "do", "not", "the", "policy")


@dataclasses.dataclass(frozen=True)
class Case:
    """`prompts` prompts of `prompt` tokens, of which a picture of `side` x `side` pixels has some;
    8 answers of exactly `tokens` to each. `vocab` None is that of the shipped base."""

    name: str
    prompt: int
    tokens: int
    side: int
    bar: float              # times as fast as the peer
    vocab: int | None = None
    prompts: int = 2
    memory: float | None = None     # at most this share of the peer's
    checkpointing: bool = False     # the peer's; ours has none
    turns: int = 7
    slow: bool = False              # the peer's first step counts


CASES = {case.name: case for case in (
    Case("guard", 768, 48, 256, 3.0),
    Case("short", 96, 48, 64, 1.2),
    Case("short_vocab", 96, 48, 64, 3.0, REAL_VOCAB, memory=1 / 3, checkpointing=True, turns=1,
         slow=True),
    Case("guard_vocab", 768, 48, 256, 3.0, REAL_VOCAB, prompts=1, memory=1 / 3,
         checkpointing=True, turns=1, slow=True),
)}


def write_case(case: Case, folder: pathlib.Path) -> None:
    """Writes weights, tokenizer, processor, pictures and `case.json` into `folder`."""
    cfg, params = models.load_hf(BASE)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    rng = np.random.default_rng(0)
    if case.vocab is not None:      # more words than the tokenizer has: none is ever in a prompt
        words = params["model"]["embed_tokens"]["embedding"]
        more = rng.standard_normal((case.vocab - len(words), words.shape[1]), np.float32)
        params["model"]["embed_tokens"]["embedding"] = jnp.concatenate([words, 0.02 * more])
        cfg = dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, vocab_size=case.vocab))
    models.save_hf(params, cfg, folder, dtype="float32")
    batcher = load_batcher(BASE)
    patches = dataclasses.replace(batcher.patches, min_pixels=case.side**2,
                                  max_pixels=case.side**2)
    save_batcher(dataclasses.replace(batcher, patches=patches), folder)
    rows = []
    for row in range(case.prompts):
        pixels = rng.integers(0, 256, (case.side, case.side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{row}.png")
        rows.append({"picture": f"picture{row}.png", "policy": _policy(case, batcher, rng),
                     "system": SYSTEM, "question": JUDGE_QUESTION})
    (folder / "case.json").write_text(json.dumps(
        dataclasses.asdict(case) | {"group": GROUP, "rows": rows}))


def _policy(case: Case, batcher: object, rng: np.random.Generator) -> str:
    """Words of one token each, as many as make the prompt as long as it is to be."""
    units = (case.side // batcher.patches.unit) ** 2
    picture = np.zeros((case.side, case.side, 3), np.uint8)

    def length(policy: str) -> int:
        example = PolicyExample("", "judge", JUDGE_QUESTION, policy, image=picture)
        return len(encode_prompt(batcher.tokenizer, example, units, (case.prompt,)).ids)

    words = [word for word in WORDS if len(batcher.tokenizer.untrusted(" " + word)) == 1]
    first = str(rng.choice(words))
    more = rng.choice(words, case.prompt - length(first))
    policy = " ".join([first, *map(str, more)])
    if length(policy) != case.prompt:
        raise ValueError(f"case {case.name}: the prompt has {length(policy)} tokens and not "
                         f"{case.prompt}")
    return policy
