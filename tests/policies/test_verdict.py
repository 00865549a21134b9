"""The verdict grammar: what is well formed, every way not to be, and that nothing slips through."""

import random
import re
import time

import pytest

from guardjax.policies import Label, Outcome, Problem, Verdict, format_verdict, parse_verdict

SAFE = "<answer>safe</answer>"
UNSAFE = "<answer>unsafe: R2, R5</answer>"


@pytest.mark.parametrize(("text", "verdict"), [
    (SAFE, Verdict(Outcome.SAFE)),
    (f" \n{SAFE}\n", Verdict(Outcome.SAFE)),
    (UNSAFE, Verdict(Outcome.UNSAFE, ("R2", "R5"))),
    ("<answer>unsafe: no-guns_2</answer>", Verdict(Outcome.UNSAFE, ("no-guns_2",))),
    (f"<think>a dog.</think>{SAFE}", Verdict(Outcome.SAFE, (), "a dog.")),
    (f"<think>\na < b, R2:\nknife\n</think>{UNSAFE}",
     Verdict(Outcome.UNSAFE, ("R2", "R5"), "a < b, R2:\nknife")),
])
def test_well_formed(text, verdict):
    assert parse_verdict(text) == verdict


MALFORMED = [
    ("", Problem.EMPTY),
    (" \n\t ", Problem.EMPTY),
    ("safe", Problem.NO_ANSWER),
    ("<think>fine</think>", Problem.NO_ANSWER),
    ("<think>fine</think>safe", Problem.NO_ANSWER),
    (SAFE + SAFE, Problem.TWO_ANSWERS),
    (SAFE + UNSAFE, Problem.TWO_ANSWERS),
    (f"<think>a</think><think>b</think>{SAFE}", Problem.TWO_THINKS),
    ("<answer><answer>safe</answer></answer>", Problem.NESTED),
    (f"<think><think>a</think></think>{SAFE}", Problem.NESTED),
    (f"<think>{SAFE}</think>", Problem.ANSWER_IN_THINK),
    (f"<think>{SAFE}</think>{UNSAFE}", Problem.ANSWER_IN_THINK),
    ("<answer><think>a</think>safe</answer>", Problem.THINK_IN_ANSWER),
    (f"{SAFE}<think>a</think>", Problem.THINK_AFTER_ANSWER),
    (f"<think>a {SAFE}", Problem.UNCLOSED_THINK),
    ("<think>a", Problem.UNCLOSED_THINK),
    ("<answer>safe", Problem.UNCLOSED_ANSWER),
    ("<think>a</think><answer>unsafe: R1", Problem.UNCLOSED_ANSWER),
    (f"a</think>{SAFE}", Problem.STRAY_CLOSING_TAG),
    (f"{SAFE}</answer>", Problem.STRAY_CLOSING_TAG),
    ("<ANSWER>safe</ANSWER>", Problem.MISSPELT_TAG),
    ("< answer>safe</answer>", Problem.MISSPELT_TAG),
    ("<answer>safe</answer >", Problem.MISSPELT_TAG),
    ("<answer>safe<answer/>", Problem.MISSPELT_TAG),
    (f"<think>a</think{SAFE}</think>", Problem.ANSWER_IN_THINK),
    (f"<think>a</thin></think>{SAFE}", Problem.MISSPELT_TAG),
    (f"<think>a <answer safe</think>{SAFE}", Problem.MISSPELT_TAG),
    (f"The picture is {SAFE}", Problem.TEXT_OUTSIDE),
    (f"{SAFE} thanks", Problem.TEXT_OUTSIDE),
    (f"{SAFE}<|im_end|>", Problem.TEXT_OUTSIDE),
    (f"<think>a</think>\n{SAFE}", Problem.TEXT_OUTSIDE),
    (f"\u200b{SAFE}", Problem.TEXT_OUTSIDE),
    (f"\u00a0{SAFE}", Problem.TEXT_OUTSIDE),
    (f"<think> </think>{SAFE}", Problem.EMPTY_THINK),
    (f"<think>a<|im_start|>b</think>{SAFE}", Problem.TEMPLATE_TOKEN),
    ("<answer></answer>", Problem.EMPTY_ANSWER),
    ("<answer> </answer>", Problem.EMPTY_ANSWER),
    ("<answer> safe</answer>", Problem.SPACE_IN_ANSWER),
    ("<answer>safe\n</answer>", Problem.SPACE_IN_ANSWER),
    ("<answer>unsafe: R1 </answer>", Problem.SPACE_IN_ANSWER),
    ("<answer>Safe</answer>", Problem.WRONG_CASE),
    ("<answer>UNSAFE: R1</answer>", Problem.WRONG_CASE),
    ("<answer>yes</answer>", Problem.UNKNOWN_WORD),
    ("<answer>safe.</answer>", Problem.UNKNOWN_WORD),
    ("<answer>safe unsafe: R1</answer>", Problem.UNKNOWN_WORD),
    ("<answer>needs_review</answer>", Problem.UNKNOWN_WORD),
    ("<answer>s\u0430fe</answer>", Problem.UNKNOWN_WORD),  # a Cyrillic letter
    ("<answer>safe: R1</answer>", Problem.SAFE_WITH_RULE),
    ("<answer>safe:</answer>", Problem.SAFE_WITH_RULE),
    ("<answer>unsafe</answer>", Problem.UNSAFE_WITHOUT_RULE),
    ("<answer>unsafe:</answer>", Problem.UNSAFE_WITHOUT_RULE),
    ("<answer>unsafe: </answer>", Problem.UNSAFE_WITHOUT_RULE),
    ("<answer>unsafe:R1</answer>", Problem.MALFORMED_RULES),
    ("<answer>unsafe: R1,R2</answer>", Problem.MALFORMED_RULES),
    ("<answer>unsafe: R1, </answer>", Problem.SPACE_IN_ANSWER),
    ("<answer>unsafe: R1,</answer>", Problem.MALFORMED_RULES),
    ("<answer>unsafe: 1</answer>", Problem.MALFORMED_RULES),
    ("<answer>unsafe: R1\n, R2</answer>", Problem.MALFORMED_RULES),
    ("<answer>unsafe: R2, R2</answer>", Problem.DUPLICATE_RULE),
    ("<answer>unsafe: R2, R9</answer>", Problem.UNKNOWN_RULE),
    ("<answer>unsafe: r2</answer>", Problem.UNKNOWN_RULE),
]


@pytest.mark.parametrize(("text", "problem"), MALFORMED)
def test_malformed_is_named_and_needs_review(text, problem):
    verdict = parse_verdict(text, known_rules=("R1", "R2", "R5"))
    assert (verdict.outcome, verdict.rule_ids) == (Outcome.NEEDS_REVIEW, ())
    assert verdict.problem is problem


def test_every_problem_has_a_case():
    of_scoring = {Problem.MASS_OUTSIDE, Problem.UNDECIDED, Problem.NOT_FINITE}     # of no text
    assert {problem for _, problem in MALFORMED} | {Problem.TRUNCATED} == set(Problem) - of_scoring


@pytest.mark.parametrize("text", [SAFE, UNSAFE, f"<think>a</think>{SAFE}", ""])
def test_nothing_counts_in_a_truncated_answer(text):
    verdict = parse_verdict(text, truncated=True)
    assert verdict == Verdict(Outcome.NEEDS_REVIEW, problem=Problem.TRUNCATED)


def test_rule_ids_are_checked_only_against_known_rules():
    assert parse_verdict("<answer>unsafe: X7</answer>").outcome is Outcome.UNSAFE
    assert parse_verdict(
        "<answer>unsafe: X7</answer>", known_rules=()).problem is Problem.UNKNOWN_RULE
    assert parse_verdict(SAFE, known_rules=()).outcome is Outcome.SAFE


@pytest.mark.parametrize("label", [
    Label("safe"), Label("unsafe", ("R1",)), Label("unsafe", ("R5", "R2", "odd-id_3")),
])
@pytest.mark.parametrize("rationale", [None, "knife is in R1", " two\nlines "])
def test_what_is_written_is_read_back(label, rationale):
    verdict = parse_verdict(format_verdict(label, rationale))
    assert (verdict.outcome, verdict.rule_ids) == (label.verdict, label.rule_ids)
    assert verdict.rationale == (rationale and rationale.strip())
    assert verdict.problem is None


@pytest.mark.parametrize("rationale", ["", "  ", "a</think>b", SAFE, "<Think>", "<|im_end|>"])
def test_a_rationale_that_would_break_the_answer_is_refused(rationale):
    with pytest.raises(ValueError, match="rationale"):
        format_verdict(Label("safe"), rationale)


# The grammar once more, as one expression that shares no code with the parser.
_ORACLE = re.compile(
    r"[ \t\r\n]*"
    r"(?:<think>((?:[^<]|<(?!\s*/|\s*think|\s*answer))*)</think>)?"
    r"<answer>(?:(safe)|unsafe: ([A-Za-z][A-Za-z0-9_-]*(?:, [A-Za-z][A-Za-z0-9_-]*)*))</answer>"
    r"[ \t\r\n]*"
)
_PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "safe", "unsafe", "unsafe: ", "R1", "R2", ", ",
    ",", ":", " ", "\n", "dog", ".", "Safe", "\u200b", "\u00a0", "1", "-", "yes",
]


def _random_text(rng):
    if rng.random() < 0.5:
        return "".join(rng.choices(_PIECES, k=rng.randrange(12)))
    # A good answer with a few edits is closer to the border than noise.
    label = rng.choice([Label("safe"), Label("unsafe", ("R1",)), Label("unsafe", ("R1", "R2"))])
    text = format_verdict(label, rng.choice([None, "dog"]))
    for _ in range(rng.randrange(3)):
        cut, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        change = rng.choice(["delete", "insert", "repeat"])
        if change == "delete":
            text = text[:cut] + text[min(end, cut + 3):]
        elif change == "insert":
            text = text[:cut] + rng.choice(_PIECES) + text[cut:]
        else:
            text = text[:end] + text[cut:]
    return text


def test_nothing_malformed_is_ever_safe_or_unsafe():
    rng, tally = random.Random(0), {outcome: 0 for outcome in Outcome}
    known = ("R1", "R2", "R3")
    for _ in range(30_000):
        text = _random_text(rng)
        verdict = parse_verdict(text, known)
        tally[verdict.outcome] += 1
        assert (verdict.problem is None) == (verdict.outcome is not Outcome.NEEDS_REVIEW), text
        match = _ORACLE.fullmatch(text)
        if match is None or (match.group(1) is not None and not match.group(1).strip()):
            assert verdict.outcome is Outcome.NEEDS_REVIEW, text
        elif match.group(2):
            assert verdict.outcome is Outcome.SAFE, text
        else:
            ids = match.group(3).split(", ")
            good = len(set(ids)) == len(ids) and set(ids) <= set(known)
            assert (verdict.outcome is Outcome.UNSAFE) == good, text
    assert min(tally.values()) > 1000, tally


def test_long_hostile_text_is_fast():
    start = time.process_time()
    for noise in ("<", "<think>", "R1, ", "< ", "<|", " ", "<" + " " * 50_000, "</"):
        noise *= max(1, 100_000 // len(noise))
        for text in (noise, f"<think>{noise}", f"<think>{noise}</think>{SAFE}",
                     f"<answer>unsafe: {noise}", f"<answer>unsafe: {noise}</answer>"):
            parse_verdict(text, ("R1",))
    assert time.process_time() - start < 3
