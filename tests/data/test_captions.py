"""Captions as a data set: what a row says, what is refused, and batches that SFT learns from."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from guardjax.cli.assets import model_dir
from guardjax.cli.main import main
from guardjax.data.batching import load_batcher
from guardjax.data.datasets.batches import RecordBatches
from guardjax.data.datasets.record import DatasetError, answered, to_example
from guardjax.data.datasets.registry import open_dataset
from guardjax.data.lengths import ANSWER_BUCKETS
from guardjax.data.prompts import CAPTION_QUESTION, PromptError
from guardjax.data.sources import iterate
from guardjax.policies import load_ladder
from tests.data import dataset_files as files


@pytest.fixture(scope="module", name="batcher")
def _batcher():
    return load_batcher(model_dir("base"))


@pytest.fixture(name="folder")
def _folder(tmp_path):
    files.captions(tmp_path / "captions")
    return tmp_path / "captions"


def rewritten(folder, place, **changes):
    """One row changed; a value of None takes the column away."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows[place] |= changes
    rows[place] = {key: value for key, value in rows[place].items() if value is not None}
    files.write_jsonl(folder / "metadata.jsonl", rows)


def test_a_row_is_a_picture_and_what_is_to_be_said_of_it(folder):
    rewritten(folder, 2, caption="  a dog\nand  a hat. ")
    reader = open_dataset("captions", folder)
    assert len(reader) == 6 and reader.split == "train"
    record = reader[2]
    np.testing.assert_array_equal(record.image, files.pixels(2))
    asked = to_example(record)
    assert (asked.kind, asked.question, asked.answer) == ("caption", CAPTION_QUESTION, "")
    assert asked.label is None and asked.policy_text == asked.policy_id == ""
    assert answered(record).answer == " a dog and a hat."
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.records == reader.records and copy.digest == reader.digest
    rewritten(folder, 0, caption="something else")
    assert open_dataset("captions", folder).digest != reader.digest


@pytest.mark.parametrize("changes, message", [
    ({"caption": None}, r"metadata.jsonl, row 2 has no column 'caption', which captions of your"),
    ({"caption": " \n"}, r"metadata.jsonl, row 2: the caption of 'images/p1.png' is empty; write"),
    ({"caption": 3}, r"row 2: column 'caption' is 3; it must be a text"),
    ({"file_name": "images/p0.png"}, r"row 2: id 'images/p0.png' is also that of .*row 1"),
    ({"file_name": "images/no.png"}, r"row 2: its picture is not there \(looked for images/no.png"),
    ({"file_name": "../secret.png"}, r"row 2: its picture is not there"),
])
def test_bad_rows_are_refused_and_named(folder, changes, message):
    files.write_png(folder.parent / "secret.png", 0)
    rewritten(folder, 1, **changes)
    with pytest.raises(DatasetError, match=message):
        open_dataset("captions", folder)
    errors = []
    assert len(open_dataset("captions", folder, errors=errors)) == 5 and len(errors) == 1


def test_a_table_without_the_column_is_refused(folder):
    for place in range(6):
        rewritten(folder, place, caption=None)
    with pytest.raises(DatasetError, match="metadata.jsonl has no column 'caption'.*its columns are"
                                           " 'file_name', 'draft'"):
        open_dataset("captions", folder)


def test_other_refusals(folder):
    with pytest.raises(DatasetError, match="captions have no split 'test': they are for training"):
        open_dataset("captions", folder, "test")
    with pytest.raises(DatasetError, match="are under no policy; leave the policy 'ladder-L3' out"):
        open_dataset("captions", folder, policy=load_ladder()["L3"])
    with pytest.raises(DatasetError, match="has no metadata.jsonl and no metadata.csv; `guardjax "):
        open_dataset("captions", folder / "images")
    with pytest.raises(DatasetError, match="there is no folder nowhere: is the path right?"):
        open_dataset("captions", "nowhere")
    (folder / "images/p3.png").write_bytes(files.png(3)[:-20])
    with pytest.raises(DatasetError, match="row 4: its picture .*p3.png: E_TRUNCATED"):
        open_dataset("captions", folder)[3]


def test_a_csv_is_read_alike(folder):
    wanted = open_dataset("captions", folder)
    (folder / "metadata.jsonl").unlink()
    files.write_csv(folder / "metadata.csv", [
        {"file_name": f"images/p{i}.png", "caption": f"a dog and {i} hats."} for i in range(6)])
    assert open_dataset("captions", folder).digest == wanted.digest


def test_batches_follow_from_their_index_and_hold_captions_alone(folder, batcher):
    def source():
        return RecordBatches(open_dataset("captions", folder), batcher, batch=4, num_batches=6,
                             seed=3, teach=True)

    batches, again = source(), list(iterate(source()))
    seen = set()
    for index in range(6):
        batch = batches[index]
        assert [e.example_id for e in batch.examples] == [
            e.example_id for e in again[index].examples]
        np.testing.assert_array_equal(batch.tokens, again[index].tokens)
        for row, example in enumerate(batch.examples):
            number = int(example.image_id.removesuffix(".png")[-1])
            text = batcher.tokenizer.decode(batch.tokens[row, 0, :batch.length[row, 0] - 1])
            assert text == example.answer == f" a dog and {number} hats."
            assert example.kind == "caption"
            seen.add(number)
    assert len(seen) > 4


def test_a_paragraph_is_named_before_the_first_batch_and_fits_where_there_is_room(folder, batcher):
    def source(batcher):
        return RecordBatches(open_dataset("captions", folder), batcher, batch=2, num_batches=8,
                             seed=0, teach=True)

    rewritten(folder, 4, caption="a dog and a hat " * 40)
    with pytest.raises(PromptError, match=r"example captions/train/images/p4.png: its answer has "
                                          r"\d+ tokens.* the limit is 96; set lengths.answer=12,"):
        source(batcher)
    roomy = source(dataclasses.replace(batcher, answer_buckets=(*ANSWER_BUCKETS, 384)))
    assert max(roomy[i].length.max() for i in range(8)) > ANSWER_BUCKETS[-1]


def test_data_check_finds_pictures_that_are_there_twice(folder, tmp_path, capsys):
    words = ["data", "check", "--format", "captions", str(folder)]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "split train: 6 rows of 6 pictures, captions of 5 to 5 words" in shown
    assert "Policy" not in shown
    (folder / "images/p5.png").write_bytes(files.png(0))
    (folder / "images/p3.png").write_bytes(b"no picture")
    rewritten(folder, 2, caption="")
    assert main([*words, "--out", str(tmp_path / "found.json")]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "there twice: 1" in shown and "bad rows: 2" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    (twice,) = found["duplicates"]
    assert twice["first"].endswith("row 1") and twice["second"].endswith("row 6")
    assert "row 3: the caption" in found["errors"][0] and "row 4: its picture" in found["errors"][1]
    assert not found["clean"] and found["labels"] == {} and found["words"] == [5, 5]
