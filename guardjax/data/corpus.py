"""The text that the tiny tokenizer is trained on: the world's own words, each of them often."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from guardjax.data import prompts, tasks
from guardjax.policies import HELD_OUT_STYLES, TRAIN_STYLES, Wording, generate_policy, load_ladder
from guardjax.world import catalogue

_REPEATS = 40  # makes a name frequent enough to become one token


def world_corpus(seed: int, num_policies: int = 4000) -> Iterator[str]:
    """Policies in every style, names, captions, questions and answers.

    Held-out wordings are here too: a tokenizer is no reader, and a word cut into bytes would test
    spelling instead of reading.
    """
    vocabulary = catalogue.vocabulary(with_held_out=True)
    rng = np.random.default_rng(seed)
    words = [*catalogue.THINGS, *catalogue.CATEGORIES]
    words += [value for values in catalogue.CONTEXTS.values() for value in values]
    for _ in range(_REPEATS):
        for index in rng.permutation(len(words)):
            yield f" {words[index]}"
            yield f"what kind is the {words[index]}? is there a {words[index]}? any {words[index]}?"
    for index in range(num_policies):
        styles = (TRAIN_STYLES, HELD_OUT_STYLES)[index % 2]
        policy = generate_policy(f"{seed}/corpus/{index}", vocabulary)
        yield f"policy: {policy.render(Wording(index, styles))}\n"
        yield f"<think>{_caption(words, rng)}</think><answer>unsafe: R1, R2, R3, R4, R5</answer>"
        yield (f"picture:{_caption(words, rng)}\n{prompts.JUDGE_QUESTION} "
               f"{tasks.CAPTION_QUESTION} {tasks.STUDY_QUESTION}")
        yield "<answer>safe</answer>:safe. :unsafe."
        yield f"system\n{prompts.SYSTEM}\nuser\nassistant\n"
        yield "how many objects? where is it? bright or dark? is there an yes no"
        yield " 1 2 3 4"
    for policy in load_ladder().values():
        for seed_ in range(_REPEATS):
            yield f"policy: {policy.render(seed_)}\n"


def _caption(words: list[str], rng: np.random.Generator) -> str:
    chosen = ", ".join(words[i] for i in rng.integers(len(words), size=3))
    return f" {chosen}. garden, dark."
