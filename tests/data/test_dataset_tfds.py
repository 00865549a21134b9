"""A reader through TensorFlow Datasets gives back what the reader gives."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from guardjax.data.datasets import tfds_builder  # noqa: F401, registers the builder
from guardjax.data.datasets.record import LABELS, DatasetError
from guardjax.data.datasets.registry import open_dataset
from tests.data import dataset_files as files


def build(folder, prepared, **options):
    """The builder by its registered name, prepared."""
    builder = tfds.builder("annotated_pictures/safeeditbench", directory=folder,
                           data_dir=prepared, **options)
    builder.download_and_prepare()
    return builder


def test_rows_come_back_in_order(tmp_path):
    files.safe_edit_bench(tmp_path / "data")
    builder = build(tmp_path / "data", tmp_path / "prepared")
    skip = tfds.decode.SkipDecoding()
    source = builder.as_data_source("test", decoders={"image": skip})
    reader = open_dataset("safeeditbench", tmp_path / "data")
    assert len(source) == len(reader)
    for found, record in zip((source[i] for i in range(len(source))), reader, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(found["image"])))
        np.testing.assert_array_equal(picture, record.image)
        assert LABELS[found["label"]] == record.label
        texts = [found[name].decode() for name in ("row_id", "policy_id", "policy", "image_id")]
        assert texts == [record.row_id, record.policy.id, record.policy.text, record.image_id]
        assert [rule.decode() for rule in found["rule_ids"]] == list(record.rule_ids)


def test_what_was_prepared_from_other_rows_is_refused(tmp_path):
    files.safe_edit_bench(tmp_path / "data")
    build(tmp_path / "data", tmp_path / "prepared")
    rows = files.safe_edit_rows()
    rows[0]["safety_label"] = "unsafe"
    files.write_parquet(tmp_path / "other/test.parquet", rows)
    with pytest.raises(DatasetError, match="was prepared from other rows .*give another data_dir"):
        build(tmp_path / "other", tmp_path / "prepared")
    build(tmp_path / "other", tmp_path / "prepared2")


def test_bad_rows_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder .*hf download"):
        build(tmp_path / "none", tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()
