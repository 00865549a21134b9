"""Building the world on Apache Beam: its options, and a place that all workers can write to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class BeamBuild:
    """How a world is built by Beam.

    Attributes:
      options: words for Beam, such as "--runner=DataflowRunner"; none is the DirectRunner.
      stage: a folder that all workers can write to, local or such as gs://bucket/folder, for the
        time of the build; None where they see the folder of the build itself.
    """

    options: tuple[str, ...] = ()
    stage: str | None = None

    def __post_init__(self) -> None:
        runner = next((word.partition("=")[2] for word in self.options
                       if word.startswith("--runner=")), "DirectRunner")
        if self.stage is None and runner not in ("DirectRunner", "PrismRunner"):
            raise ValueError(f"the workers of {runner} do not see this machine's folders: give "
                             "--stage a folder that they can write to, such as gs://BUCKET/stage")

    def download_config(self) -> Any:
        """What TFDS takes to run the pipeline.

        Raises:
          ValueError: there is no Beam, or it knows no option of that name.
        """
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ModuleNotFoundError as error:
            raise ValueError(f"--beam needs Apache Beam ({error}): pip install "
                             "'guardjax[world,beam]'") from error
        import tensorflow_datasets as tfds

        options = PipelineOptions(list(self.options))
        if unknown := options.get_all_options(retain_unknown_options=True).keys() - (
                options.get_all_options().keys()):
            raise ValueError(f"Beam knows no option {', '.join(sorted(unknown))}")
        return tfds.download.DownloadConfig(beam_options=options)

    def write_to(self, folder: Path, write: Callable[[str | os.PathLike], None]) -> None:
        """Calls `write(place)`, and brings what it wrote there into `folder`."""
        if self.stage is None:
            write(folder)
            return
        from etils import epath

        place = epath.Path(self.stage) / folder.name
        place.mkdir(parents=True)
        try:
            write(place)
            _copy(place, folder)
        finally:
            place.rmtree()


def _copy(place: Any, folder: Path) -> None:
    """Copies a folder that `etils.epath` can read, with all that is in it."""
    folder.mkdir(exist_ok=True)
    for entry in place.iterdir():
        if entry.is_dir():
            _copy(entry, folder / entry.name)
        else:
            entry.copy(folder / entry.name)
