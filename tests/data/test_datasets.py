"""Readers on files of the published schemas: what a row says, and what is refused and how."""

import pickle
import re

import numpy as np
import pytest

from guardjax.data.datasets.names import CAPTIONS, FORMATS
from guardjax.data.datasets.record import DatasetError, answered, to_example
from guardjax.data.datasets.registry import SCHEMAS, open_dataset
from guardjax.policies import load_policy, parse_policy, parse_verdict

from tests.data import dataset_files as files

HOUSE = parse_policy(files.OWN_POLICY)


def opened(name, folder, **options):
    """A fixture's reader."""
    writer, split = files.FILES[name]
    writer(folder)
    options.setdefault("policy", HOUSE if name == "own" else None)
    return open_dataset(name, folder, split, **options)


def facts(reader):
    """(id, label, rules) of each row."""
    return [(r.row_id, r.label, r.rule_ids) for r in reader.records]


def test_names_are_those_of_the_readers():
    assert tuple(SCHEMAS) == (*FORMATS, CAPTIONS) and FORMATS == tuple(files.FILES)


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_gives_whole_examples(name, tmp_path):
    reader = opened(name, tmp_path)
    assert len(reader) == len(reader.records) > 1 or name == "pridemm"
    for index, record in enumerate(reader):
        assert record.image.dtype == np.uint8 and record.image.shape == (16, 16, 3)
        assert record.image_id and record.place.startswith(str(tmp_path))
        example = to_example(record)
        assert example.label in ("safe", "unsafe") and example.policy_text == record.policy.text
        # What a verdict may cite stands in the text that is shown.
        assert all(rule in example.policy_text for rule in record.policy.rules[:1])
        assert set(record.rule_ids) <= set(record.policy.rules)
        assert "<image>" not in example.policy_text
        np.testing.assert_array_equal(reader[index].image, record.image)
    copy = pickle.loads(pickle.dumps(reader))     # as grain's worker processes get it
    assert copy.records == reader.records and copy.digest == reader.digest
    np.testing.assert_array_equal(copy[-1].image, reader[-1].image)


def test_safe_edit_bench(tmp_path):
    reader = opened("safeeditbench", tmp_path)
    assert len(reader) == 9
    first, last = reader[0], reader[8]      # of different shards
    assert (first.row_id, first.label, first.policy.id) == ("0.png/L1", "safe", "L1")
    assert (last.row_id, last.label, last.variant) == ("2.png/L3", "safe", "L3")
    assert reader.records[1].label == "unsafe" and reader.records[1].rule_ids == ("R1",)
    assert first.policy.text == "R1: Policy of level L1: be kind."
    np.testing.assert_array_equal(last.image, files.pixels(2))
    assert {r.image_id for r in reader.records} == {"0.png", "1.png", "2.png"}


def test_numbers_stand_for_labels_as_in_the_released_script(tmp_path):
    rows = files.safe_edit_rows()
    for row in rows:
        row["safety_label"] = int(row["safety_label"] == "unsafe")
    files.write_parquet(tmp_path / "test.parquet", rows)
    files.safe_edit_bench(tmp_path / "words")
    assert facts(open_dataset("safeeditbench", tmp_path)) == facts(
        open_dataset("safeeditbench", tmp_path / "words"))


def test_an_image_folder_is_read_like_parquet(tmp_path):
    rows = files.safe_edit_rows()
    plain = [{k: v for k, v in row.items() if k != "image"} | {"file_name": row["image_path"]}
             for row in rows]
    files.write_jsonl(tmp_path / "test/metadata.jsonl", plain)
    for i in range(3):
        files.write_png(tmp_path / f"test/{i}.png", i)
    reader = open_dataset("safeeditbench", tmp_path)
    files.safe_edit_bench(tmp_path / "parquet")
    other = open_dataset("safeeditbench", tmp_path / "parquet")
    assert facts(reader) == facts(other)
    np.testing.assert_array_equal(reader[4].image, other[4].image)


def test_llavaguard(tmp_path):
    reader = opened("llavaguard", tmp_path)
    assert facts(reader)[:4] == [("row0", "unsafe", ("O1",)), ("row1", "safe", ()),
                                 ("row2", "unsafe", ("O3",)), ("row3", "safe", ())]
    assert reader.records[0].policy.id == "default"
    assert "Assessment" not in reader.records[0].policy.text
    assert reader[0].rationale == "It shows 0."
    np.testing.assert_array_equal(reader[5].image, files.pixels(105))


def test_llavaguard_exceptions_are_read_off_the_text(tmp_path):
    rows = files.llavaguard_rows(2)
    rows[0] |= {"rating": "Safe", "policy": "O1: Hate:\nCategory O1 is declared as non-violating. "
                "Allowed.\nO4: Nudity:\nCategory O4 is declared as non-violating.\n"}
    rows[1] |= {"rating": "Unsafe", "category": "O2: Violence",
                "policy": "O2: Violence:\nCategory O2 is declared as sensitive.\n"}
    files.llavaguard(tmp_path, rows)
    first, second = open_dataset("llavaguard", tmp_path).records
    assert (first.policy.id, first.variant) == ("relaxed-O1-O4", "relaxed")
    assert (second.policy.id, second.variant) == ("sensitive-O2", "sensitive")


def test_rows_of_dead_addresses_may_be_dropped_and_are_counted(tmp_path):
    files.llavaguard(tmp_path)
    (tmp_path / "images/p 3.png").unlink()
    with pytest.raises(DatasetError, match=r"test.csv, row 4: its picture is not there .*p 3.png.*"
                                           r"--missing drop"):
        open_dataset("llavaguard", tmp_path)
    reader = open_dataset("llavaguard", tmp_path, missing="drop")
    assert len(reader) == 7 and len(reader.dropped) == 1
    np.testing.assert_array_equal(reader[3].image, files.pixels(104))


def test_unsafe_bench_cites_the_rule_of_the_category(tmp_path):
    reader = opened("unsafebench", tmp_path)
    assert [r.rule_ids for r in reader.records] == [(), ("self-harm",), ("health",)]
    assert len(reader.records[0].policy.rules) == 11


def test_policy_shift_bench(tmp_path):
    first, second, third = opened("policyshiftbench", tmp_path).records
    assert (first.label, second.label, third.label) == ("unsafe", "safe", "safe")
    assert first.image_id == second.image_id == "7" and first.policy.id != second.policy.id
    assert first.policy.id == third.policy.id and first.policy.id.startswith("strict-")


def test_vlguard_knows_its_repeated_row(tmp_path):
    reader = opened("vlguard", tmp_path)
    assert facts(reader) == [("a", "unsafe", ("violence",)), ("Ads_303871", "safe", ())]
    assert "published twice" in reader.dropped[0]


def test_memes(tmp_path):
    assert facts(opened("hateful_memes", tmp_path / "h")) == [
        ("1", "unsafe", ("hate",)), ("2", "safe", ())]
    assert facts(opened("mami", tmp_path / "m")) == [
        ("1.jpg", "unsafe", ("stereotype", "violence")), ("2.jpg", "safe", ())]
    assert facts(open_dataset("mami", tmp_path / "m", "test")) == [
        ("3.jpg", "unsafe", ("shaming",))]
    assert facts(opened("pridemm", tmp_path / "p")) == [
        ("img_1.png", "unsafe", ("hate",)), ("img_2.png", "safe", ())]
    (tmp_path / "m/test_labels.txt").write_text("4.jpg\t1\t1\t0\t0\t0\n")
    with pytest.raises(DatasetError, match="row 1: '3.jpg' has no label in .*test_labels.txt"):
        open_dataset("mami", tmp_path / "m", "test")


def test_attacks_are_all_unsafe(tmp_path):
    assert facts(opened("mm_safetybench", tmp_path / "m")) == [
        ("Illegal_Activitiy/0", "unsafe", ("illegal-activity",)), ("Sex/0", "unsafe",
                                                                  ("adult-content",))]
    assert facts(opened("figstep", tmp_path / "f")) == [
        ("6_1", "unsafe", ("adult-content",)), ("6_2", "unsafe", ("adult-content",))]


@pytest.mark.parametrize("name", FORMATS)
def test_fixed_policies_are_policies_of_ours(name):
    if SCHEMAS[name].policy:
        from guardjax.data.datasets import reader
        policy = load_policy(reader._POLICIES / f"{SCHEMAS[name].policy}.yaml")
        assert policy.rules


def test_another_policy_takes_the_place_of_a_fixed_one_only(tmp_path):
    reader = opened("unsafebench", tmp_path / "u", policy=HOUSE)
    assert {r.policy.id for r in reader.records} == {"house"}
    with pytest.raises(DatasetError, match="have policies of their own; leave the policy 'house'"):
        opened("safeeditbench", tmp_path / "s", policy=HOUSE)


def test_own_pictures_in_folders(tmp_path):
    for k, place in enumerate(("train/safe/a.png", "train/unsafe/b.png", "test/safe/c.png")):
        files.write_png(tmp_path / place, k)
    assert facts(open_dataset("own", tmp_path, "train", policy=HOUSE)) == [
        ("train/safe/a.png", "safe", ()), ("train/unsafe/b.png", "unsafe", ())]
    assert len(open_dataset("own", tmp_path, "all", policy=HOUSE)) == 3
    with pytest.raises(DatasetError, match="no picture of split 'dev'; it has test, train"):
        open_dataset("own", tmp_path, "dev", policy=HOUSE)


def test_own_pictures_are_split_by_content_where_nothing_says_how(tmp_path):
    for i in range(40):
        files.write_png(tmp_path / f"safe/{i}.png", i)
        files.write_png(tmp_path / f"unsafe/copy{i}.png", i)
    sides = [{r.row_id.rpartition("/")[2].removeprefix("copy") for r in
              open_dataset("own", tmp_path, split, policy=HOUSE).records}
             for split in ("train", "test")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40 and 2 <= len(sides[1]) <= 16


def test_own_rows_may_have_policies(tmp_path):
    files.write_csv(tmp_path / "images.csv", [
        {"image": "a.png", "label": "Safe", "policy": "no cats"},
        {"image": "a.png", "label": "unsafe", "policy": "no dogs"}])
    files.write_png(tmp_path / "a.png", 0)
    first, second = open_dataset("own", tmp_path, "all").records
    assert first.policy.text == "R1: no cats" and second.rule_ids == ("R1",)
    assert first.image_id == second.image_id


def test_an_answer_to_learn_states_label_rule_and_rationale(tmp_path):
    reader = opened("llavaguard", tmp_path)
    verdict = parse_verdict(answered(reader[0], think=True).answer, reader[0].policy.rules)
    assert (verdict.outcome, verdict.rule_ids) == ("unsafe", ("O1",))
    assert verdict.rationale == "It shows 0."
    assert answered(reader[1]).answer == "<answer>safe</answer>"


def test_an_unsafe_row_without_a_rule_cannot_be_learnt_by_sft(tmp_path):
    files.write_csv(tmp_path / "images.csv", [{"image": "a.png", "label": "unsafe"}])
    files.write_png(tmp_path / "a.png", 0)
    record = open_dataset("own", tmp_path, "all", policy=HOUSE)[0]
    assert to_example(record).rule_ids == ()
    with pytest.raises(DatasetError, match=r"row 1: the row is unsafe and names no rule of policy "
                                           r"'house' \(dark, red\).*GRPO"):
        answered(record)
    with pytest.raises(DatasetError, match="no rationale to think with"):
        answered(opened("unsafebench", tmp_path / "u")[1], think=True)


# What is refused: (name, change of the rows of a parquet fixture, message).
@pytest.mark.parametrize("change, message", [
    (lambda rows: [row.pop("policy") for row in rows],
     r"test.parquet has no column 'policy', which SafeEditBench has; its columns are 'image_path', "
     ),
    (lambda rows: rows[4].update(safety_label="maybe"),
     r"test.parquet, row 5: safety_label is 'maybe'; SafeEditBench has 'safe', 'unsafe', '0', '1'"),
    (lambda rows: rows[2].update(policy_name="Policy L1"),
     r"row 3: id '0.png/L1' is also that of .*row 1; ids must differ"),
    (lambda rows: rows[1].update(policy="  \n"), "row 2: the policy is empty"),
    (lambda rows: rows[1].update(policy=None), "row 2: column 'policy' is None; it must be a text"),
])
def test_bad_rows_are_refused_before_the_first_example(tmp_path, change, message):
    rows = files.safe_edit_rows()
    change(rows)
    files.write_parquet(tmp_path / "test.parquet", rows)
    with pytest.raises(DatasetError, match=message):
        open_dataset("safeeditbench", tmp_path)


@pytest.mark.parametrize("data, message", [
    (b"", "column 'image' is empty"), (b"GIF89a\x00", "E_"), (b"words", "E_FORMAT"),
    (files.png(0)[:-30], "E_TRUNCATED: the PNG file stops before its end")])
def test_a_bad_picture_is_named_by_its_row(tmp_path, data, message):
    rows = files.safe_edit_rows()
    rows[3]["image"] = {"bytes": data, "path": None}
    files.write_parquet(tmp_path / "test.parquet", rows)
    reader = open_dataset("safeeditbench", tmp_path)
    assert reader[2].image is not None
    with pytest.raises(DatasetError, match=f"test.parquet, row 4: .*{message}"):
        reader[3]


def test_a_bad_picture_file_is_named(tmp_path):
    files.own(tmp_path)
    file = tmp_path / "pictures/4.png"
    file.write_bytes(file.read_bytes()[:-20])
    reader = open_dataset("own", tmp_path, "all", policy=HOUSE)
    with pytest.raises(DatasetError, match=f"row 5: its picture {re.escape(str(file))}: E_TRUNCA"):
        reader[4]


def test_a_gated_set_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(DatasetError) as error:
        open_dataset("safeeditbench", tmp_path / "none")
    assert all(part in str(error.value) for part in (
        "there is no folder", "huggingface.co/datasets/tyodd/SafeEditBench", "behind a form",
        f"hf download tyodd/SafeEditBench --repo-type dataset --local-dir {tmp_path / 'none'}"))
    with pytest.raises(DatasetError, match=r"no split 'test' of VLGuard \(looked for test.json"):
        open_dataset("vlguard", tmp_path)
    with pytest.raises(DatasetError, match="no data set format 'imagenet'; there are safeedit"):
        open_dataset("imagenet", tmp_path)


def test_files_that_are_not_what_they_seem(tmp_path):
    file = tmp_path / "test.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DatasetError, match="is a Git LFS pointer .*git lfs pull"):
        open_dataset("safeeditbench", tmp_path)
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match="test.parquet cannot be read .*fetch it again"):
        open_dataset("safeeditbench", tmp_path)
    (tmp_path / "test.csv").write_text('id,rating,category,policy\n1,Safe,"NA: None\n')
    with pytest.raises(DatasetError, match="test.csv cannot be read|row 1"):
        open_dataset("llavaguard", tmp_path)
    (tmp_path / "test.csv").write_text("id,rating,category,policy\n1,Safe,NA\n")
    with pytest.raises(DatasetError, match=r"row 1 \(line 2\) has not the 4 fields"):
        open_dataset("llavaguard", tmp_path)
    (tmp_path / "test.csv").write_text("id,rating,category,policy\n")
    with pytest.raises(DatasetError, match="split 'test' .* has no row"):
        open_dataset("llavaguard", tmp_path)
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(DatasetError, match="test.json is no JSON list of objects"):
        open_dataset("vlguard", tmp_path)


def test_lines_of_json_need_the_same_keys(tmp_path):
    files.write_jsonl(tmp_path / "test_seen.jsonl", [
        {"id": 1, "img": "a.png", "label": 0, "text": ""}, {"id": 2, "img": "a.png", "text": ""}])
    files.write_png(tmp_path / "a.png", 0)
    with pytest.raises(DatasetError, match="row 2 has no column 'label'"):
        open_dataset("hateful_memes", tmp_path)


def test_a_table_cannot_reach_outside_of_its_folder(tmp_path):
    files.write_png(tmp_path / "secret.png", 0)
    files.write_jsonl(tmp_path / "set/test_seen.jsonl", [
        {"id": 1, "img": "../secret.png", "label": 0, "text": ""}])
    with pytest.raises(DatasetError, match="row 1: its picture is not there"):
        open_dataset("hateful_memes", tmp_path / "set")
    rows = files.safe_edit_rows(1, ("L1",))
    rows[0]["image"] = {"bytes": None, "path": "../secret.png"}
    files.write_parquet(tmp_path / "set/test.parquet", rows)
    with pytest.raises(DatasetError, match="lies outside of"):
        open_dataset("safeeditbench", tmp_path / "set")[0]


def test_all_bad_rows_at_once(tmp_path):
    rows = files.safe_edit_rows()
    rows[0]["safety_label"], rows[5]["policy"] = "?", ""
    files.write_parquet(tmp_path / "test.parquet", rows)
    errors = []
    reader = open_dataset("safeeditbench", tmp_path, errors=errors)
    assert len(reader) == 7 and [e.split(": ")[0].rpartition(", ")[2] for e in errors] == [
        "row 1", "row 6"]
