"""A model directory as an lmms-eval model: verdicts on our tasks, plain answers on others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from guardjax.data.prompts import JUDGE_QUESTION, PromptError
from guardjax.eval.guard import Guard
from guardjax.eval.lmms.scoring import POLICY
from guardjax.types import PolicyExample


class GuardjaxLmms(lmms):
    """Greedy answers, as long as `Batcher.answer_limit`, to prompts with a picture or none.

    lmms-eval's interface has two abstract methods more, `loglikelihood` and
    `generate_until_multi_round`. A guard has no answers to give there: it is asked once, and gives
    a verdict of its own. They raise `NotImplementedError`, as lmms-eval's own models do with what
    they do not offer, so that a task which needs them stops and no made-up number is scored.
    """

    is_simple = True

    def __init__(self, pretrained: str, batch_size: int | str = 16, dtype: str = "float32",
                 attention: str = "xla", device: str | None = None, **others: Any) -> None:
        """`pretrained` is a model directory; `device` is JAX's business (`JAX_PLATFORMS`).

        Raises:
          ValueError: an argument that nothing would read.
        """
        super().__init__()
        del device
        unread = {name for name, value in others.items() if value is not None} - {"max_batch_size"}
        if unread:
            raise ValueError(f"guardjax has no model argument {', '.join(sorted(unread))}; it has "
                             "pretrained, batch_size, dtype and attention")
        self._guard = Guard.load(pretrained, int(batch_size), dtype=dtype, attention=attention)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """An answer a request, in order; cut at the first of the request's `until`.

        Raises:
          PromptError: a prompt with several pictures, one with template tokens in it, or a longer
            one than the model takes.
        """
        examples = [self._example(request) for request in requests]
        answers = self._guard.answer_examples(examples)
        texts = []
        for request, (text, truncated, *_) in zip(requests, answers, strict=True):
            wanted = request.args[1] or {}
            judged = request.task_name and self._doc(request).get(POLICY) is not None
            # A verdict that was cut off is none, whatever stands before the cut.
            text = "" if judged and truncated else _cut(text, wanted.get("until") or ())
            texts.append(text)
            self.cache_hook.add_partial("generate_until", request.args[0], text)
        return texts

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered: tasks that compare given answers by likelihood are refused.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("guardjax answers (generate_until); it scores no given answers")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: a guard is asked once.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("guardjax answers one round; choose a task of one round")

    def _doc(self, request: Instance) -> Mapping[str, Any]:
        _, _, _, doc_id, task, split = request.args
        return self.task_dict[task][split][doc_id]

    def _example(self, request: Instance) -> PolicyExample:
        context, _, doc_to_visual, doc_id, task, split = request.args
        name, doc = f"{task}/{split}/{doc_id}", self._doc(request)
        pictures = [picture for picture in doc_to_visual(doc) if picture is not None]
        if len(pictures) > 1:
            raise PromptError(f"{name} has {len(pictures)} pictures; guardjax takes one a prompt")
        image = np.array(pictures[0].convert("RGB")) if pictures else None
        if doc.get(POLICY) is not None:
            return PolicyExample(example_id=name, kind="judge", question=JUDGE_QUESTION,
                                 policy_text=doc[POLICY], image=image)
        text = re.sub(r"<image>\s*", "", context)
        tokenizer = self._guard.batcher.tokenizer
        if list(tokenizer.trusted(text)) != list(tokenizer.untrusted(text)):
            raise PromptError(f"{name}: its text has tokens of the chat template in it, and a "
                              "benchmark's text must not speak with its voice")
        return PolicyExample(example_id=name, kind="question", question=text, image=image)


def _cut(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text
