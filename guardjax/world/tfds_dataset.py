"""The policy world as a TensorFlow Datasets builder that never needs TensorFlow.

Records go to ArrayRecord files in the order of their pairs: records 2k and 2k + 1 of a split are
the members of its pair k. Pictures are yielded as PNG files, because TFDS would encode arrays with
a TensorFlow graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from guardjax.world.edits import sample_pair
from guardjax.world.record import encode, pair_records
from guardjax.world.scene import SceneSpec

SEED_STRIDE = 2**32    # pairs of different dataset seeds never share a scene seed

Example = tuple[int, dict[str, Any]]
MakePair = Callable[[int], list[Example]]


class PolicyWorld(tfds.core.GeneratorBasedBuilder):
    """Edited pairs with exactly known attributes, one record a member."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        sizes: Mapping[str, int],
        seed: int,
        spec: SceneSpec,
        on_pair: Callable[[], None] = lambda: None,
        beam: bool = False,
        **options: Any,
    ):
        """`sizes` is pairs a split; `on_pair` is called after each pair is made.

        With `beam` the pairs are made by a pipeline of Apache Beam, which calls nobody.
        """
        self._sizes, self._seed, self._spec, self._on_pair = dict(sizes), seed, spec, on_pair
        self._beam = beam
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._spec.image_size
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description="Objects over photographs in edited pairs, with exactly known attributes.",
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                "mask": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
                "scene_id": text, "pair_id": text, "role": text, "edit_kind": text,
                "attributes": text, "caption": text, "questions": text,
                "photograph": text, "artist": text,
            }),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self._sizes}

    def _generate_examples(self, split: str) -> Any:
        make = functools.partial(
            pair_examples, seed=self._seed, spec=dataclasses.replace(self._spec, split=split))
        if self._beam:
            return in_parallel(self._sizes[split], make, split)
        return self._one_by_one(self._sizes[split], make)

    def _one_by_one(self, pairs: int, make: MakePair) -> Iterator[Example]:
        for number in range(pairs):
            yield from make(number)
            self._on_pair()


def pair_examples(number: int, *, seed: int, spec: SceneSpec) -> list[Example]:
    """Both members of a pair with their keys: they follow from the numbers alone."""
    pair = sample_pair(seed * SEED_STRIDE + number, spec)
    records = pair_records(pair, f"{spec.split}-{number:05d}")
    return [(2 * number + member, encode(record)) for member, record in enumerate(records)]


def in_parallel(pairs: int, make: MakePair, name: str) -> Any:
    """A `beam.PTransform` that makes the pairs on whatever workers the pipeline has."""
    import apache_beam as beam      # the extra `beam`

    return (f"{name}: numbers" >> beam.Create(range(pairs))
            | f"{name}: spread" >> beam.Reshuffle()
            | f"{name}: pairs" >> beam.FlatMap(make))
