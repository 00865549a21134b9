"""The models that come with the package: small, whole, and the guard does what the README shows."""

from __future__ import annotations

import json

import pytest

from guardjax.cli.assets import SHIPPED, example_file, model_dir
from guardjax.cli.examples import PICTURES, POLICIES, true_verdicts
from guardjax.eval.guard import Guard
from guardjax.world import catalogue

LIMIT = 8 * 1024**2     # bytes


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_small_and_whole(name):
    folder = model_dir(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) < LIMIT
    guard = Guard.load(folder)
    for word in (*catalogue.THINGS, *catalogue.CATEGORIES):
        guard.batcher.tokenizer.word_id(word)   # every name is one token


@pytest.mark.parametrize("policy", POLICIES)
def test_the_shipped_guard_judges_the_readme_s_pictures_rightly(guardjax, tmp_path, policy):
    out = tmp_path / "verdicts.jsonl"
    status = guardjax("judge", *(example_file(name) for name in PICTURES),
                      "--policy", example_file(policy), "--out", out)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    told = {name: record["decision"] for name, record in zip(PICTURES, records, strict=True)}
    assert status == 0 and told == true_verdicts(policy)
