"""Batches of annotated records, and LlavaGuard's exceptions against the rule written out."""

import dataclasses

import numpy as np
import pytest

from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher
from guardjax.data.datasets.batches import RecordBatches, RecordMix
from guardjax.data.datasets.exceptions import allow, categories_of, draw_flip, relax
from guardjax.data.datasets.llavaguard import exceptions
from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.registry import open_dataset
from guardjax.data.prompts import PromptError
from guardjax.data.sources import iterate
from guardjax.policies import parse_policy, parse_verdict
from tests.data import dataset_files as files


@pytest.fixture(scope="module", name="batcher")
def _batcher():
    return load_batcher(model_dir("base"))


@pytest.fixture(name="llavaguard")
def _llavaguard(tmp_path):
    files.llavaguard(tmp_path)
    return open_dataset("llavaguard", tmp_path)


def test_allowing_a_category_replaces_its_part_alone():
    text = allow(files.SHORT_POLICY, ["O2"])
    assert categories_of(text) == ("O1", "O2", "O3") and exceptions(text) == {"O2": "relaxed"}
    assert "- Insult." in text and "- Show." in text and "- Hit." not in text
    assert allow(text, ["O2"]) == text
    with pytest.raises(DatasetError, match="has no part that begins with 'O7'.* it has O1, O2, O3"):
        allow(files.SHORT_POLICY, ["O7"])


def test_labels_follow_from_the_rule(llavaguard):
    """Over every record and every set of categories that its policy has."""
    checked = set()
    for record in llavaguard.records:
        for mask in range(8):
            chosen = [c for k, c in enumerate(("O1", "O2", "O3")) if mask >> k & 1]
            found = relax(record, chosen)
            unsafe = record.label == "unsafe" and record.category not in chosen
            assert found.label == ("unsafe" if unsafe else "safe")
            assert found.rule_ids == (record.rule_ids if unsafe else ())
            assert exceptions(found.policy.text) == dict.fromkeys(chosen, "relaxed")
            assert found.policy.id == ("relaxed-" + "-".join(chosen) if chosen else "default")
            assert found.variant == ("relaxed" if record.category in chosen else "")
            checked.add((record.label, found.label))
    assert checked == {("safe", "safe"), ("unsafe", "unsafe"), ("unsafe", "safe")}


def test_an_unsafe_row_without_a_category_has_no_exceptions(llavaguard):
    record = dataclasses.replace(llavaguard.records[0], category="NA")
    with pytest.raises(DatasetError, match="its category is 'NA'; exceptions need one of O1"):
        relax(record, ["O2"])


def test_flips_are_one_picture_with_two_labels(llavaguard):
    rng = np.random.default_rng(0)
    own = set()
    for _ in range(100):
        record = llavaguard[0]
        kept, flipped = draw_flip(record, rng)
        assert (kept.label, flipped.label) == ("unsafe", "safe")
        assert kept.image is flipped.image and kept.image_id == flipped.image_id
        assert "O1" not in exceptions(kept.policy.text) and exceptions(kept.policy.text)
        assert "O1" in exceptions(flipped.policy.text)
        own.add((kept.policy.id, flipped.policy.id))
    assert len(own) == 12      # 3 ways to allow others, and 4 with the picture's own


def test_batches_follow_from_their_index_and_are_balanced(llavaguard, batcher):
    def source():
        return RecordBatches(llavaguard, batcher, batch=6, num_batches=8, seed=3, teach=True,
                             mix=RecordMix(flips=0.0, exceptions=0.5))

    batches, again = source(), source()
    shares = []
    for index in (5, 0, 3):
        one, two = batches[index], again[index]
        assert [e.example_id for e in one.examples] == [e.example_id for e in two.examples]
        np.testing.assert_array_equal(one.prompts.prompt.tokens, two.prompts.prompt.tokens)
        labels = [e.label for e in one.examples]
        assert labels.count("safe") == 3
        shares += [a.image_id == b.image_id for a, b in zip(one.examples[::2], one.examples[1::2])]
        for e in one.examples:
            verdict = parse_verdict(e.answer, e.facts["rules"])
            assert verdict.outcome == e.label and verdict.rule_ids == e.rule_ids
    assert 0 < sum(shares) < len(shares)
    drawn = list(iterate(batches))      # as a stage takes it, through grain
    assert [e.example_id for e in drawn[3].examples] == [e.example_id for e in batches[3].examples]
    assert len({e.example_id for b in drawn for e in b.examples}) > 8


def test_a_picture_with_two_labels_is_shown_under_both(tmp_path, batcher):
    files.safe_edit_bench(tmp_path)
    source = RecordBatches(open_dataset("safeeditbench", tmp_path), batcher, batch=2, seed=0,
                           num_batches=10, mix=RecordMix(flips=1.0), teach=False)
    for index in range(10):
        safe, unsafe = source[index].examples
        assert safe.image_id == unsafe.image_id and (safe.label, unsafe.label) == ("safe", "unsafe")
        assert safe.policy_id != unsafe.policy_id and safe.answer == ""


def test_one_label_alone_is_drawn_as_it_is(tmp_path, batcher):
    files.figstep(tmp_path)
    source = RecordBatches(open_dataset("figstep", tmp_path), batcher, batch=4, seed=0,
                           num_batches=4, teach=True)
    assert {e.label for i in range(4) for e in source[i].examples} == {"unsafe"}


def test_every_row_must_be_teachable_before_the_first_batch(tmp_path, batcher):
    files.own(tmp_path)
    text = (tmp_path / "images.csv").read_text().replace("unsafe,dark", "unsafe,", 1)
    (tmp_path / "images.csv").write_text(text)
    reader = open_dataset("own", tmp_path, "all", policy=parse_policy(files.OWN_POLICY))
    with pytest.raises(DatasetError, match="row 2: the row is unsafe and names no rule"):
        RecordBatches(reader, batcher, batch=2, num_batches=1, seed=0, teach=True)
    RecordBatches(reader, batcher, batch=2, num_batches=1, seed=0, teach=False)


def test_every_answer_to_learn_must_fit_before_the_first_batch(tmp_path, batcher):
    """The longest is named, so that one new length does for all."""
    files.own(tmp_path)
    reader = open_dataset("own", tmp_path, "all", policy=parse_policy(files.OWN_POLICY))
    reader.records = tuple(
        dataclasses.replace(record, rationale=" dog" * (3 + 60 * (i in (1, 3)) + i))
        for i, record in enumerate(reader.records))
    longest = reader.records[3].row_id
    with pytest.raises(PromptError, match=f"example own/all/{longest}: its answer has .* the limit "
                                          r"is 48; set lengths\.answer=12,48,64,96"):
        RecordBatches(reader, dataclasses.replace(batcher, answer_buckets=(12, 48)), batch=2,
                      num_batches=1, seed=0, teach=True, think=True)
    RecordBatches(reader, batcher, batch=2, num_batches=1, seed=0, teach=True, think=True)
