"""YAML: equal round trips, and errors that name the file, the line and the key."""

import random

import pytest

from guardjax.policies import (
    All,
    AnyOf,
    Has,
    Is,
    Not,
    OtherThan,
    Policy,
    PolicyError,
    Rule,
    dump_policy,
    load_policy,
    parse_policy,
    save_policy,
)
from tests.policies.test_condition import random_condition

GOOD = """\
schema: 1
id: shop
version: 1.10
title: A shop's policy
rules:
  - id: R1
    severity: high
    when: {all: [knife, {is: {place: garden}}, {not: dog}]}
    unless: {count: {name: tools, at_least: 2}}
    wordings: [no knife in garden, "keep: the knife out"]
  - id: R2
    when: {any: [beer, {count: {name: wine, at_most: 0}}, {other_than: [food]}]}
  - id: R3
    text: |
      nothing that would
      frighten a child
"""


def test_every_form_is_read():
    policy = parse_policy(GOOD)
    assert policy == Policy("shop", "1.10", "A shop's policy", (
        Rule("R1", All((Has("knife"), Is("place", "garden"), Not(Has("dog")))),
             Has("tools", at_least=2), "high", ("no knife in garden", "keep: the knife out")),
        Rule("R2", AnyOf((Has("beer"), Has("wine", at_least=0, at_most=0),
                          OtherThan(("food",))))),
        Rule("R3", wordings=("nothing that would frighten a child",)),
    ))


def test_round_trip_is_equal():
    rng = random.Random(0)
    policies = [parse_policy(GOOD)]
    for number in range(60):
        unless = random_condition(rng) if rng.random() < 0.5 else None
        wordings = tuple(rng.sample(["no: x", "- y", "# z", "'q'", "yes", "1", "caf\u00e9"], 2))
        version = rng.choice(["1", "1.10", "2026-01-01", "no"])
        policies.append(Policy(f"p{number}", version, "null", (
            Rule("R1", random_condition(rng), unless, rng.choice(["low", "medium", "high"])),
            Rule("no", random_condition(rng), wordings=wordings[:1]),
            Rule("R3", wordings=wordings),
            Rule("R4", wordings=wordings[:1]),
        )))
    for policy in policies:
        again = parse_policy(dump_policy(policy))
        assert again == policy
        assert again.hash == policy.hash


def test_save_and_load(tmp_path):
    policy = parse_policy(GOOD)
    save_policy(policy, tmp_path / "shop.yaml")
    assert load_policy(tmp_path / "shop.yaml") == policy
    assert [path.name for path in tmp_path.iterdir()] == ["shop.yaml"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "shop.yaml"
    save_policy(parse_policy(GOOD), path)
    before = path.read_text()

    def full(self, text, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        save_policy(parse_policy(GOOD.replace("shop", "mall")), path)
    assert path.read_text() == before


def edit(old, new):
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


@pytest.mark.parametrize(("text", "line", "key", "words"), [
    ("", None, None, "empty"),
    (" \n\n# only a comment\n", None, None, "empty"),
    ("just words", 1, "", "not a mapping"),
    ("- a\n- b", 1, "", "not a mapping"),
    ("id: [", 1, None, "not valid YAML"),
    ("id: a\n\tb: c", 2, None, "not valid YAML"),
    ("id: \x07", None, None, "not valid YAML"),
    (GOOD + "---\nid: second", 17, None, "not valid YAML"),
    ("[" * 5000, 1, None, "more than 50 levels"),
    ("schema: 1\nid: &a x\ntitle: *a", 3, None, "alias"),
    ("x" * 200_001, None, None, "200001 characters"),
    (edit("schema: 1\n", ""), 1, "schema", "missing"),
    (edit("schema: 1", "schema: 2"), 1, "schema", "version 2 is not supported"),
    (edit("schema: 1", "schema: '1'"), 1, "schema", "quotes"),
    (edit("schema: 1", "schema: one"), 1, "schema", "whole number"),
    (edit("id: shop", "id: a shop"), 2, "id", "'a shop'"),
    (edit("id: shop", "id: no"), 2, "id", "true or false 'no'"),
    (edit("id: shop", "id: shop\nid: mall"), 3, "id", "twice"),
    (edit("version: 1.10", "version: [1]"), 3, "version", "a list"),
    (edit("title: A shop's policy", "title: ' '"), 4, "title", "blank"),
    (edit("title: A shop's policy", "titel: x"), 4, "titel", "did you mean 'title'"),
    (GOOD.split("rules:")[0] + "rules: []", 5, "rules", "empty list"),
    (GOOD.split("rules:")[0] + "rules: {a: b}", 5, "rules", "not a list"),
    (GOOD.split("rules:")[0] + "rules:", 5, "rules", "nothing"),
    (GOOD.split("rules:")[0] + "rules: !!python/tuple [a]", 5, "rules", "not a list"),
    (edit("- id: R2\n", "- id: R1\n"), 11, "rules[1].id", "line 6"),
    (edit("- id: R2\n   ", "-"), 11, "rules[1].id", "missing"),
    (edit("- id: R2\n", "- id: 2\n"), 11, "rules[1].id", "whole number '2'"),
    (edit("severity: high", "severity: huge"), 6, "rules[0]", "'huge'"),
    (edit("severity: high", "colour: red"), 7, "rules[0].colour", "not a known key"),
    (edit("    unless:", "    unles:"), 9, "rules[0].unles", "did you mean 'unless'"),
    (edit("[knife, {is", "[Knife, {is"), 8, "rules[0].when.all[0]", "'Knife'"),
    (edit("[knife, {is", "[no, {is"), 8, "rules[0].when.all[0]", "quotes"),
    (edit("{is: {place: garden}}", "{is: garden}"), 8, "rules[0].when.all[1].is", "not a mapping"),
    (edit("{is: {place: garden}}", "{is: {place: 3}}"), 8, "rules[0].when.all[1].is.place", "'3'"),
    (edit("{is: {place: garden}}", "{is: {place: garden, light: dark}}"), 8,
     "rules[0].when.all[1].is", "2 contexts"),
    (edit("{not: dog}", "{nott: dog}"), 8, "rules[0].when.all[2].nott", "did you mean 'not'"),
    (edit("{not: dog}", "{not: dog, any: [fox]}"), 8, "rules[0].when.all[2]", "2 keys"),
    (edit("{not: dog}", "[dog]"), 8, "rules[0].when.all[2]", "is a list"),
    (edit("{not: dog}", "{}"), 8, "rules[0].when.all[2]", "0 keys"),
    (edit("at_least: 2", "at_least: two"), 9, "rules[0].unless.count.at_least", "'two'"),
    (edit("at_least: 2", "at_least: -1"), 9, "rules[0].unless.count.at_least", "'-1'"),
    (edit("name: tools, at_least: 2", "name: tools"), 9, "rules[0].unless.count", "at_least"),
    (edit("at_least: 2", "at_least: 0"), 9, "rules[0].unless.count", "always holds"),
    (edit("{other_than: [food]}", "{other_than: []}"), 12,
     "rules[1].when.any[2].other_than", "empty list"),
    (edit("text: |", "when: dog\n    text: |"), 15, "rules[2].text", "'when'"),
    (edit("wordings: [no knife in garden, ", "wordings: [3, "), 10, "rules[0].wordings[0]", "'3'"),
])
def test_errors_name_line_and_key(text, line, key, words):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "shop.yaml")
    error = caught.value
    assert (error.line, error.key) == (line, key)
    assert words in error.problem
    assert str(error).startswith("shop.yaml" + (f":{line}: " if line else ": "))


def test_a_rule_with_nothing_to_say():
    text = GOOD.split("rules:")[0] + "rules:\n  - id: R1\n    severity: low\n"
    with pytest.raises(PolicyError, match="neither a condition nor words") as caught:
        parse_policy(text)
    assert caught.value.line == 6


def test_unreadable_files(tmp_path):
    with pytest.raises(PolicyError, match="nowhere.yaml: no such file"):
        load_policy(tmp_path / "nowhere.yaml")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"title: caf\xe9")
    with pytest.raises(PolicyError, match="byte 10 is not UTF-8"):
        load_policy(latin)
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_policy(marked).id == "shop"


def test_an_alias_bomb_is_refused_at_once():
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))
    with pytest.raises(PolicyError, match="alias"):
        parse_policy(f"a0: &a0 [x]\n{levels}")
