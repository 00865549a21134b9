"""A data set of ours as an lmms-eval task: its reader in the place of a download."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from lmms_eval.api.task import ConfigurableTask
from PIL import Image, ImageFile

from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.registry import open_dataset
from guardjax.eval.dataset_results import group_of
from guardjax.eval.lmms.scoring import POLICY

FOLDER = "GUARDJAX_DATA"


class GuardTask(ConfigurableTask):
    """Rows of a reader, checked as `guardjax data check` checks them."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is the task's YAML file; `dataset_kwargs.format` names the reader."""
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Reads `$GUARDJAX_DATA/FORMAT`.

        Raises:
          DatasetError: the variable is not set, or whatever is wrong with the data.
        """
        name = dataset_kwargs["format"]
        if FOLDER not in os.environ:
            raise DatasetError(f"set {FOLDER} to the folder that holds {name}/, as the hub lays it "
                               "out")
        split = self.config.test_split
        reader = open_dataset(name, Path(os.environ[FOLDER]) / name, split)
        text, texts = datasets.Value("string"), datasets.List(datasets.Value("string"))
        with _whole_pictures_only():
            rows = [{"image": {"bytes": _png(record.image), "path": None},
                     POLICY: record.policy.text, "rules": list(record.policy.rules),
                     "label": record.label, "group": group_of(record), "row_id": record.row_id}
                    for record in reader]
        self.dataset = datasets.DatasetDict({split: datasets.Dataset.from_list(
            rows, features=datasets.Features({
                "image": datasets.Image(), POLICY: text, "rules": texts, "label": text,
                "group": text, "row_id": text}))})
        self.dataset_no_image = self.dataset.remove_columns("image")


@contextlib.contextmanager
def _whole_pictures_only() -> Iterator[None]:
    """Undoes, for a while, what some tasks of lmms-eval set for the whole process.

    With it Pillow fills up cut files with grey, which our intake refuses to work under.
    """
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _png(pixels: Any) -> bytes:
    """The pixels that a guard is shown, so that every model is shown the same."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
