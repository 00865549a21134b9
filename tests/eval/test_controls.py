"""Controls take away one thing and keep the labels; the level matrix reads the ladder's results."""

import numpy as np
import pytest

from guardjax.data import tasks
from guardjax.eval.controls import (
    CONTROLS,
    control_columns,
    remove_images,
    shuffle_policies,
    tell_in_words,
)
from guardjax.eval.harness import Question, policy_questions, retention_questions
from guardjax.eval.matrix import by_level, level_figure, level_matrices, level_splits
from guardjax.eval.summary import summarise
from guardjax.eval.tables import ResultRow
from guardjax.policies import Wording, make_splits
from guardjax.world import catalogue
from guardjax.world.edits import sample_pair
from guardjax.world.record import pair_records
from guardjax.world.scene import SceneSpec
from tests.eval.fake_run import fake_predictions


@pytest.fixture(scope="module", name="splits")
def _splits():
    return make_splits(catalogue.vocabulary(), dev=4, test=8, test_categories=2, test_shapes=2)


@pytest.fixture(scope="module", name="records")
def _records():
    return [record for seed in range(4) for record in pair_records(
        sample_pair(seed, SceneSpec(split="test")), f"test-{seed:05d}")]


@pytest.fixture(scope="module", name="questions")
def _questions(records, splits):
    return [*policy_questions(records, splits, "test"), *retention_questions(records[:2])]


def judged(questions):
    return [q.example for q in questions if q.example.label is not None]


def test_every_control_keeps_labels_and_pairs_and_names_its_split(questions, records):
    for control, made in zip(CONTROLS, (
            shuffle_policies(questions), remove_images(questions),
            tell_in_words(questions, records)), strict=True):
        assert {q.split for q in made} == {f"test_{control}"}
        kept = [(e.example_id, e.label, e.rule_ids, e.policy_id, e.pair_id, e.image_id)
                for e in judged(questions)]
        assert kept == [(e.example_id, e.label, e.rule_ids, e.policy_id, e.pair_id, e.image_id)
                        for e in judged(made)]
    assert [column.split for column in control_columns("dev")] == [
        "dev", *(f"dev_{control}" for control in CONTROLS)]


def test_a_shuffled_policy_is_another_one_of_the_split_and_always_the_same(questions):
    shown = {}
    for before, after in zip(judged(questions), judged(shuffle_policies(questions)), strict=True):
        assert after.policy_text != before.policy_text and after.image is before.image
        shown.setdefault(before.policy_text, set()).add(after.policy_text)
    texts = {e.policy_text: e.facts["rules"] for e in judged(questions)}
    assert all(len(others) == 1 for others in shown.values())
    assert set().union(*shown.values()) == set(texts)
    for example in judged(shuffle_policies(questions, seed=1)):
        assert example.facts["rules"] == texts[example.policy_text]
    again = [e.policy_text for e in judged(shuffle_policies(questions))]
    assert again == [e.policy_text for e in judged(shuffle_policies(questions))]
    assert again != [e.policy_text for e in judged(shuffle_policies(questions, seed=1))]


def test_one_policy_cannot_be_shuffled(questions):
    policy = judged(questions)[0].policy_id
    with pytest.raises(ValueError, match="split 'test' has one policy only"):
        shuffle_policies([q for q in questions if q.example.policy_id == policy])


def test_nothing_of_the_picture_is_left_without_it(records, splits):
    words = [Question("test", tasks.read(records[0], splits.test[0], Wording(0)))]
    for example in judged(remove_images(words)):
        assert example.image is None and "scene" not in example.facts
        assert example.facts["rules"] and example.policy_text


def test_words_are_those_of_tasks_read(records, splits):
    asked = policy_questions(records, splits, "test")
    expected = policy_questions(records, splits, "test", make=tasks.read)
    for made, wanted in zip(tell_in_words(asked, records), expected, strict=True):
        assert made.example == wanted.example
    with pytest.raises(KeyError):
        tell_in_words(asked, records[:2])


def test_level_matrix_of_two_algorithms():
    splits = level_splits()
    assert len(splits) == 5 and splits[0] == "ladder/ladder-L1"
    rows = [ResultRow(f"sft_l{trained}", split, "macro_f1", trained / 10, 0, 1, 9)
            for trained in (2, 3) for split in splits]
    matrices = level_matrices(rows, {"sft": "SFT", "grpo": "GRPO"})
    assert list(matrices) == ["SFT"]
    assert np.isnan(matrices["SFT"][0]).all() and (matrices["SFT"][1] == 0.2).all()
    figure = level_figure(rows, {"sft": "SFT"})
    assert figure.png[:4] == b"\x89PNG" and "A dash" in figure.caption
    assert level_figure(rows, {"grpo": "GRPO"}) is None


def test_by_level_gives_accuracy_where_a_level_has_no_positives():
    rows = [row for split in ("ladder", "test") for row in fake_predictions(split=split)]
    found = summarise(by_level(rows), ("macro_f1", "accuracy"), draws=5, per_seed=False)
    assert {row.split for row in found} == {f"ladder/p{i}" for i in range(6)}
    values = {(row.split, row.metric): row.value for row in found}
    assert values["ladder/p0", "macro_f1"] == values["ladder/p0", "accuracy"]  # p0 bans nothing
