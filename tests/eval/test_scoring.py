"""Scoring by one token: the rule fails closed, and the numbers are those of the whole softmax."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from guardjax import models
from guardjax.cli.assets import model_dir
from guardjax.data import batching
from guardjax.data.prompts import POLICY_FIRST, PromptError
from guardjax.eval.guard import Guard
from guardjax.eval.scoring import (
    AnswerTokens,
    Score,
    Scoring,
    ScoringError,
    answer_tokens,
    read_score,
)
from guardjax.policies import Outcome, Problem
from guardjax.types import PolicyExample

ANSWER = AnswerTokens((7,), 1, 2)
SAFE, UNSAFE, REVIEW = Outcome.SAFE, Outcome.UNSAFE, Outcome.NEEDS_REVIEW


def score(p_unsafe=0.9, mass=1.0, token=2):
    return Score(p_unsafe, mass, token, "")


@pytest.mark.parametrize(("found", "rule", "outcome", "problem"), [
    (score(0.9), {}, UNSAFE, None), (score(0.1), {}, SAFE, None),
    (score(0.5), {}, REVIEW, Problem.UNDECIDED),                        # a tie
    (score(0.9), {"threshold": 0.95}, SAFE, None),
    (score(0.7), {"margin": 0.25}, REVIEW, Problem.UNDECIDED),
    (score(0.1, mass=0.49), {}, REVIEW, Problem.MASS_OUTSIDE),
    (score(0.9, mass=0.49), {}, REVIEW, Problem.MASS_OUTSIDE),
    (score(0.1, mass=0.49), {"min_mass": 0.4}, SAFE, None),
    (score(math.nan), {}, REVIEW, Problem.NOT_FINITE),
    (score(0.1, mass=math.nan), {}, REVIEW, Problem.NOT_FINITE),
    (score(0.1, mass=math.inf), {}, REVIEW, Problem.NOT_FINITE)])
def test_what_is_not_clear_needs_review(found, rule, outcome, problem):
    verdict = read_score(found, ANSWER, Scoring("probability", **rule))
    assert (verdict.outcome, verdict.problem) == (outcome, problem)


@pytest.mark.parametrize(("found", "outcome"), [
    (score(token=1), SAFE), (score(token=2), UNSAFE), (score(token=3), REVIEW),
    (score(math.nan, token=1), REVIEW)])
def test_one_token_must_be_one_of_the_two(found, outcome):
    assert read_score(found, ANSWER, Scoring("one_token")).outcome is outcome


@pytest.mark.parametrize(("values", "message"), [
    ({"mode": "guess"}, "scoring 'guess' is none; choose one of reasoned"),
    ({"mode": "probability", "threshold": 1.5}, "threshold is 1.5; it is a probability"),
    ({"mode": "probability", "min_mass": math.nan}, "min_mass is nan"),
    ({"mode": "one_token", "margin": 0.1}, "margin=0.1 is for scoring 'probability'")])
def test_a_rule_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ScoringError, match=message):
        Scoring(**values)


def test_the_deciding_tokens_are_the_first_that_differ():
    tokenizer = batching.load_batcher(model_dir("base")).tokenizer
    found = answer_tokens(tokenizer.untrusted)
    texts = [tokenizer.decode([*found.begun, token]) for token in (found.safe, found.unsafe)]
    assert texts == ["<answer>safe", "<answer>unsafe"]
    with pytest.raises(ScoringError, match="no one token tells them apart"):
        answer_tokens(lambda text: [hash(text)] if "R1" in text else [1, hash(text)])


@pytest.fixture(scope="module")
def shipped():
    """Compiled fast and run slowly: the programs are run once or twice."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield Guard.load(model_dir("guard"), batch=8)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def examples():
    """Two pictures under four policies each, and one of them told in words."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(2)]
    texts = ("R1: no hats.", "R1: no dogs. R2: no knife at night.", "R1: nothing in a garden.",
             "R1: no cats.")
    made = [PolicyExample(f"{i}/{p}", "judge", "does it follow the policy?", text, picture)
            for p, text in enumerate(texts) for i, picture in enumerate(pictures)]
    return [*made, PolicyExample("words", "read", "does it follow the policy?", texts[0],
                                 facts={"scene": " a dog"})]


@pytest.mark.parametrize("mode", ["one_token", "probability"])
def test_branches_and_whole_prompts_score_alike(shipped, examples, mode):
    """To 2e-5, whatever the order; and P(unsafe) is the softmax over the two of all logits."""
    scored = dataclasses.replace(shipped, scoring=Scoring(mode))
    replies = scored.answer_examples(examples)
    assert scored._used == {1, 4}, "the picture's policies branch, what is told in words does not"
    alone = dataclasses.replace(scored, branches=1).answer_examples(examples[::-1])[::-1]
    for one, other in zip(replies, alone, strict=True):
        assert one.verdict == other.verdict
        np.testing.assert_allclose(one.score.p_unsafe, other.score.p_unsafe, atol=2e-5)
        np.testing.assert_allclose(one.score.mass, other.score.mass, atol=2e-5)
    found = answer_tokens(scored.batcher.tokenizer.untrusted)
    prompts = scored.batcher.prompts(examples[:1], begun=found.begun)
    features = scored.fns.encode(scored.params, prompts.vision)
    (hidden,), _ = scored.fns.forward(scored.params, (prompts.prompt,), features, None)
    last = int(np.asarray(prompts.prompt.mask).sum()) - 1
    logits = np.asarray(scored.fns.unembed(scored.params, hidden[0, last]), np.float64)
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert replies[0].score.mass == pytest.approx(p[found.safe] + p[found.unsafe], abs=1e-5)
    assert replies[0].score.p_unsafe == pytest.approx(
        p[found.unsafe] / (p[found.safe] + p[found.unsafe]), abs=1e-5)


def test_one_token_says_what_the_written_verdict_says(shipped, examples):
    """The shipped guard writes no rationale, so its first word decides either way."""
    written = shipped.answer_examples(examples)
    decided = dataclasses.replace(shipped, scoring=Scoring("one_token")).answer_examples(examples)
    for one, other in zip(written, decided, strict=True):
        assert one.text.removeprefix("<answer>").startswith(other.text.strip())
        assert other.text.strip() == str(other.verdict.outcome)


def test_a_model_that_gives_no_number_calls_nothing_safe(shipped, examples):
    broken = dataclasses.replace(
        shipped, scoring=Scoring("probability"),
        params=jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), shipped.params))
    for reply in broken.answer_examples(examples):
        assert reply.verdict.outcome is REVIEW and reply.verdict.problem is Problem.NOT_FINITE


def test_policies_of_one_picture_go_through_with_it_once(shipped):
    """The tower sees a picture once for all its policies; with `policy_first` once a policy is."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    shapes = []
    fns = dataclasses.replace(shipped.fns, encode=lambda params, vision: (
        shapes.append(vision.frame.shape[0]), shipped.fns.encode(params, vision))[1])
    guard = dataclasses.replace(shipped, fns=fns, scoring=Scoring("probability"), batch=8)
    texts = [f"R1: no {name}." for name in ("hat", "dog", "cat", "knife", "bottle", "fish", "cup",
                                            "car")]
    found = guard.answer([picture] * 8, texts)
    assert shapes == [1] and len({reply.score.p_unsafe for reply in found}) == 8
    first = dataclasses.replace(
        guard, batcher=dataclasses.replace(guard.batcher, template=POLICY_FIRST))
    trunks = []
    first.fns = dataclasses.replace(fns, forward=lambda params, segments, features, cache: (
        trunks.append(segments[0].tokens.shape), fns.forward(params, segments, features, cache))[1])
    pictures = [np.roll(picture, i, axis=0) for i in range(8)]
    replies = first.answer(pictures, texts[:1] * 8)
    assert len(replies) == 8 and len(trunks) == 1 and trunks[0][0] == 1


def test_a_model_is_asked_in_the_order_it_was_trained_with(tmp_path, shipped):
    batcher = dataclasses.replace(shipped.batcher, template=POLICY_FIRST)
    cfg, params = models.load_hf(model_dir("guard"))
    models.save_hf(params, cfg, tmp_path / "model")
    batching.save_batcher(batcher, tmp_path / "model")
    assert batching.load_batcher(tmp_path / "model").template == POLICY_FIRST
    assert Guard.load(tmp_path / "model", template=POLICY_FIRST).batcher.template == POLICY_FIRST
    for path, asked in ((model_dir("guard"), POLICY_FIRST), (tmp_path / "model", "image_first")):
        with pytest.raises(PromptError, match=f"was trained with template .*asked with '{asked}'"):
            Guard.load(path, template=asked)
    with pytest.raises(PromptError, match="template 'question_first' is none; choose one of"):
        Guard.load(tmp_path / "model", template="question_first")
    (tmp_path / "model" / batching.TEMPLATE_FILE).write_text('{"template": "image_last"}')
    with pytest.raises(PromptError, match="prompt_template.json: template 'image_last' is none"):
        batching.load_batcher(tmp_path / "model")
