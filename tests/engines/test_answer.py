"""What may be wrong with an answer's tokens, beside what the fake server shows."""

import numpy as np
import pytest

from guardjax.engines.answer import Answer, AnswerError, Checked, as_samples, check_answer
from guardjax.engines.prompt import EnginePrompt
from guardjax.rl.engine import Decoding
from guardjax.rl.sampling_params import SamplingParams

END, PAD, VOCAB = 1, 0, 20
DECODING = Decoding(SamplingParams(2, 5, END, PAD, stop=((7, 8),)), 1.0, (3, PAD))
PROMPT = EnginePrompt("e", (4, 5, 6))


def checked(tokens, finish, logps=None, prompt=(4, 5, 6)):
    logps = [-0.5 * (i + 1) for i in range(len(tokens))] if logps is None else logps
    return check_answer(Answer(tokens, logps, finish, prompt), PROMPT, DECODING, VOCAB)


@pytest.mark.parametrize("tokens, finish, kept, ended", [
    ([9, 9, END], "stop", 3, True), ([9] * 5, "length", 5, False), ([9, 9, 9, 9, END], "stop", 5,
                                                                    True),
    ([9, 7, 8, 9, 9], "length", 3, True), ([7, 7, 8], "stop", 3, True),
    ([END, 9, 9], "stop", 1, True), ([9, 9, 9, 7, 8], "length", 5, True),
])
def test_an_answer_counts_up_to_its_first_end(tokens, finish, kept, ended):
    found = checked(tokens, finish)
    assert found == Checked(tuple(tokens[:kept]),
                            tuple(-0.5 * (i + 1) for i in range(kept)), ended)


@pytest.mark.parametrize("tokens, finish, logps, prompt, problem", [
    ([], "stop", None, PROMPT.ids, "got 0 tokens, and max_tokens is 5"),
    ([9] * 6, "length", None, PROMPT.ids, "got 6 tokens, and max_tokens is 5"),
    ([9, END], "stop", [-1.0], PROMPT.ids, "got 1 log-probabilities of 2 tokens"),
    ([9, 20], "stop", None, PROMPT.ids, "token 1 is 20, no id of a vocabulary of 20"),
    ([9, "9"], "stop", None, PROMPT.ids, "token 1 is '9', no id"),
    ([3, END], "stop", None, PROMPT.ids, "token 0 is 3, which may not be sampled"),
    ([9, END], "stop", [-1.0, float("-inf")], PROMPT.ids, "token 1 has a log-probability of -inf"),
    ([9, 9], "stop", None, PROMPT.ids, "stopped after token 9, which ends no answer here"),
    ([9, 9], "length", None, PROMPT.ids, r"broke off \('length'\) after 2 of 5 tokens"),
    ([9] * 5, "tool_calls", None, PROMPT.ids, r"broke off \('tool_calls'\)"),
    ([END], "stop", None, (4, 5), "saw another prompt: 2 tokens, ours has 3. Its chat"),
    ([END], "stop", None, (4, 5, 7), r"3 tokens, ours has 3 \(or other ones\)"),
    ([END], "stop", None, 4, "saw another prompt: 4 tokens, ours has 3"),
])
def test_a_wrong_answer_is_refused(tokens, finish, logps, prompt, problem):
    with pytest.raises(AnswerError, match=problem):
        checked(tokens, finish, logps, prompt)


def test_a_certain_token_may_round_to_above_zero():
    assert checked([END], "stop", [3e-7]).logps == (0.0,)


def test_samples_are_padded():
    found = as_samples({(0, 0): Checked((9, END), (-1.0, -2.0), True),
                        (0, 1): Checked((9,) * 5, (-0.5,) * 5, False)}, (1, 2), DECODING)
    np.testing.assert_array_equal(found.tokens[0], [[9, END, PAD, PAD, PAD], [9] * 5])
    np.testing.assert_array_equal(found.logp[0], [[-1, -2, 0, 0, 0], [-0.5] * 5])
    assert found.length.tolist() == [[2, 5]] and found.ended.tolist() == [[True, False]]


def test_decoding_asks_for_nothing_that_an_engine_lacks():
    from guardjax.rl.truncation import Truncation

    with pytest.raises(ValueError, match="without truncation and slots"):
        Decoding(SamplingParams(1, 1, END, PAD, truncation=Truncation(top_k=2)))
    with pytest.raises(ValueError, match="greedy answers have temperature 1, got 0.7"):
        Decoding(SamplingParams(1, 1, END, PAD, greedy=True), 0.7)
