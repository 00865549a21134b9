"""Policies: judging, rendering, hashing, refusals."""

import subprocess
import sys

import pytest

from guardjax.policies import (
    HELD_OUT_STYLES,
    All,
    AnyOf,
    Attributes,
    Has,
    Is,
    Label,
    MissingAttribute,
    Not,
    NotExecutable,
    Policy,
    Rule,
    Wording,
    verbalise,
)
from tests.policies.vocab import VOCABULARY

POLICY = Policy("p", "1", "A policy", (
    Rule("R1", Has("weapons"), Has("dog"), "high"),
    Rule("R2", All((Has("beer"), Is("place", "garden")))),
    Rule("R3", AnyOf((Has("candy"), Has("cake"))), wordings=("no sugar", "sugar is out!")),
))


def picture(*objects, place="city"):
    return Attributes.of(objects, VOCABULARY.category_of, {"place": place})


@pytest.mark.parametrize(("attributes", "rule_ids"), [
    (picture(), ()),
    (picture("knife"), ("R1",)),
    (picture("knife", "dog"), ()),
    (picture("beer"), ()),
    (picture("beer", place="garden"), ("R2",)),
    (picture("cake", "beer", "sword", place="garden"), ("R1", "R2", "R3")),
])
def test_judge_cites_the_violated_rules_in_order(attributes, rule_ids):
    assert POLICY.judge(attributes) == Label("unsafe" if rule_ids else "safe", rule_ids)


def test_an_unknown_context_is_an_error_and_never_safe():
    with pytest.raises(MissingAttribute, match="'place'"):
        POLICY.judge(Attributes.of(["dog"], VOCABULARY.category_of))
    excused = Policy("p", "1", "t", (Rule("R1", Has("knife"), Is("place", "home")),))
    with pytest.raises(MissingAttribute, match="'place'"):
        excused.judge(Attributes.of(["dog"], VOCABULARY.category_of))


def test_render_is_compact_and_deterministic():
    style = HELD_OUT_STYLES[0]
    text = Policy("p", "1", "t", POLICY.rules[:2]).render(Wording(0, (style,)))
    assert text == (f"R1: {verbalise(Has('weapons'), Has('dog'), style)}. "
                    f"R2: {verbalise(POLICY.rules[1].when, None, style)}.")
    assert POLICY.render(5) == POLICY.render(Wording(5))
    assert len({POLICY.render(seed) for seed in range(50)}) > 10


def test_own_wordings_are_drawn_and_punctuated_once():
    endings = {POLICY.render(seed).split("R3: ")[1] for seed in range(30)}
    assert endings == {"no sugar.", "sugar is out!"}


def test_shuffle_moves_rules_with_their_ids_and_words():
    straight, orders = POLICY.render(3), set()
    for seed in range(20):
        assert POLICY.render(Wording(seed)) == POLICY.render(Wording(seed, shuffle=False))
    for seed in range(30):
        text = POLICY.render(Wording(seed, shuffle=True))
        clauses = text.replace(" R", "\nR").split("\n")
        assert sorted(clauses) == POLICY.render(seed).replace(" R", "\nR").split("\n")
        orders.add(tuple(clause[:2] for clause in clauses))
    assert len(orders) == 6 and straight.startswith("R1: ")


def test_text_and_hashes_do_not_depend_on_the_process():
    code = ("from tests.policies.test_policy import POLICY as p;"
            "print(p.render(7), p.hash, p.content_hash, p.text_hash(7))")
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, text=True,
                       capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    here = f"{POLICY.render(7)} {POLICY.hash} {POLICY.content_hash} {POLICY.text_hash(7)}\n"
    assert outputs == {here}


def test_the_hash_sees_everything_and_the_content_hash_only_what_is_banned():
    def policy(*rules, name="p"):
        return Policy(name, "1", "t", rules)

    knife, dog = Has("knife"), Has("dog")
    base = policy(Rule("R1", knife), Rule("R2", dog))
    same = [
        policy(Rule("R1", dog), Rule("R2", knife)),
        policy(Rule("A", knife, severity="high"), Rule("B", dog, wordings=("no dog at all",))),
        policy(Rule("R1", AnyOf((knife, dog)))),
        policy(Rule("R1", AnyOf((dog, knife))), Rule("R2", knife)),
        policy(Rule("R1", knife), Rule("R2", dog), name="q"),
    ]
    assert {p.content_hash for p in same} == {base.content_hash}
    assert len({p.hash for p in (base, *same)}) == 6
    other = [
        policy(Rule("R1", knife)),
        policy(Rule("R1", All((knife, dog)))),
        policy(Rule("R1", knife, dog)),
        policy(Rule("R1", Has("knife", at_least=2)), Rule("R2", dog)),
    ]
    assert len({p.content_hash for p in (base, *other)}) == 5


def test_an_exception_and_a_without_are_the_same_content():
    exception = Policy("p", "1", "t", (Rule("R1", Has("knife"), Has("dog")),))
    absence = Policy("p", "1", "t", (Rule("R1", All((Has("knife"), Not(Has("dog"))))),))
    assert exception.content_hash == absence.content_hash


def test_words_only_policies_render_but_refuse_to_judge():
    policy = Policy("mine", "1", "Mine", (
        Rule("R1", Has("knife")), Rule("R2", wordings=("nothing\n  scary",)),
    ))
    assert not policy.executable and POLICY.executable
    assert policy.render(0).endswith("R2: nothing scary.")
    with pytest.raises(NotExecutable, match=r"\['R2'\] are words only"):
        policy.judge(picture("knife"))
    with pytest.raises(NotExecutable, match="R2 is words only"):
        policy.rules[1].violated(picture())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Policy("p", "1", "t", ()), "no rules"),
    (lambda: Policy("p", "1", "t", (Rule("R1", Has("dog")), Rule("R1", Has("fox")))),
     "'R1'.*twice"),
    (lambda: Policy("a b", "1", "t", POLICY.rules), "'a b'"),
    (lambda: Policy("p", " ", "t", POLICY.rules), "version"),
    (lambda: Rule("1R", Has("dog")), "'1R'"),
    (lambda: Rule("R 1", Has("dog")), "'R 1'"),
    (lambda: Rule("R1"), "neither"),
    (lambda: Rule("R1", Has("dog"), severity="huge"), "'huge'"),
    (lambda: Rule("R1", Has("dog"), wordings=("ok", " ")), "empty wording"),
    (lambda: Rule("R1", Has("dog"), wordings="no dog"), "list of texts"),
    (lambda: Rule("R1", None, Has("dog"), wordings=("no dog",)), "exception but no condition"),
    (lambda: Label("Safe"), "'Safe'"),
    (lambda: Label("harmful", ("R1",)), "'harmful'"),
    (lambda: Label("safe", ("R1",)), "'safe' none"),
    (lambda: Label("unsafe"), "at least"),
    (lambda: Label("unsafe", ("R1", "R1")), "twice"),
    (lambda: Label("unsafe", ("</answer>",)), "rule id"),
])
def test_refusals_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
