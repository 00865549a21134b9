"""Any reader as a TensorFlow Datasets builder, made without TensorFlow.

    from guardjax.data.datasets import tfds_builder          # registers it
    builder = tfds.builder("annotated_pictures/safeeditbench", directory="SafeEditBench",
                           splits=("test",), data_dir="prepared")
    builder.download_and_prepare()
    source = builder.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})

`tfds.load` with the same `builder_kwargs` does this too where TensorFlow is installed, which
`tf.data` needs. Pictures are stored as PNG files of what a guard is shown.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from guardjax.data.datasets.names import FORMATS
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import LABELS, DatasetError, Record
from guardjax.data.datasets.registry import SCHEMAS, open_dataset

_TEXTS = ("row_id", "category", "rationale", "image_id", "pair_id", "variant", "text")


class AnnotatedPictures(tfds.core.GeneratorBasedBuilder):
    """Rows of a benchmark, one example a row, in the order of the reader."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=SCHEMAS[name].title)
                       for name in FORMATS]

    def __init__(
        self, *, directory: str | Path, splits: Sequence[str] = (), config: Any = None,
        policy: Any = None, missing: str = "refuse", **options: Any,
    ) -> None:
        """`directory`, `policy` and `missing` as `open_dataset` takes them, of every split.

        Raises:
          DatasetError: something is wrong with the rows, or what is prepared in `data_dir` was made
            of others.
        """
        name = config if isinstance(config, str) else getattr(config, "name", FORMATS[0])
        self._readers: dict[str, DatasetReader] = {
            split: open_dataset(name, directory, split, policy=policy, missing=missing)
            for split in (tuple(splits) or (SCHEMAS[name].split,))}
        super().__init__(config=config, file_format="array_record", **options)
        made_of = (self.info.metadata or {}).get("digests")
        if made_of != self._digests:
            raise DatasetError(
                f"{self.data_dir} was prepared from other rows ({made_of}) than those of "
                f"{directory} ({self._digests}); remove it or give another data_dir")

    @property
    def _digests(self) -> dict[str, str]:
        return {split: reader.digest for split, reader in self._readers.items()}

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        schema = SCHEMAS[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{schema.title} as guardjax reads it. {schema.notes}",
            homepage=schema.home,
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(LABELS)),
                "policy_id": text, "policy": text,
                "rules": tfds.features.Sequence(text), "rule_ids": tfds.features.Sequence(text),
                **dict.fromkeys(_TEXTS, text),
            }),
            metadata=tfds.core.MetadataDict(digests=self._digests),
            disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(reader) for split, reader in self._readers.items()}

    def _generate_examples(self, reader: DatasetReader) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(reader):
            yield index, _stored(record)


def _stored(record: Record) -> dict[str, Any]:
    png = io.BytesIO()
    Image.fromarray(record.image).save(png, "PNG")
    png.seek(0)
    values = dataclasses.asdict(dataclasses.replace(record, image=None))
    return {"image": png, "label": record.label, "policy_id": record.policy.id,
            "policy": record.policy.text, "rules": list(record.policy.rules),
            "rule_ids": list(record.rule_ids), **{name: values[name] for name in _TEXTS}}
