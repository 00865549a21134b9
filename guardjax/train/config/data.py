"""What a run is trained on: the policy world, or annotated pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from guardjax.data.datasets.names import CAPTIONS, TRAINED_ON
from guardjax.train.config.typed import require, unknown_name


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """The policy world that the run trains and is measured on.

    Sizes count edited pairs, as `guardjax data build --size` does: 4,096 pairs are 8,192 pictures.
    """

    sizes: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"train": 4096, "dev": 256, "test": 512})  # edited pairs a split
    seed: int = 0                       # every pair follows from it

    def __post_init__(self) -> None:
        require(all(n >= 0 for n in self.sizes.values()), "sizes must not be negative")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Annotated pictures in a local folder, which take the place of the policy world."""

    format: str = ""                    # a reader, see `data/datasets/names.py`; empty: the world
    dir: str = ""                       # the data set as the hub lays it out
    split: str = "train"                # what is trained on
    policy: str = ""                    # YAML file, where rows have no policy of their own
    missing: Literal["refuse", "drop"] = "refuse"   # rows whose picture is not there
    flips: float = 0.5                  # of pairs: one picture with two labels, where there are any
    exceptions: float = 0.0             # of pairs: one picture under two of LlavaGuard's exceptions
    report: str = ""                    # split that base and trained model are measured on at the
                                        # end, into OUT/report.html; empty: none

    def __post_init__(self) -> None:
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        if not self.format:
            given = [name for name, value in usual.items() if getattr(self, name) != value]
            require(not given, f"{', '.join(given)} without a format, which names the reader: one "
                               f"of {', '.join(TRAINED_ON)}")
            return
        require(self.format in TRAINED_ON,
                unknown_name("dataset format", self.format, TRAINED_ON))
        require(bool(self.dir), f"dir must name the folder of {self.format!r}")
        require(self.flips >= 0 and self.exceptions >= 0 and self.flips + self.exceptions <= 1,
                f"flips={self.flips} and exceptions={self.exceptions} are shares of all pairs: "
                "neither may be negative, nor their sum above 1")
        if self.format == CAPTIONS:
            for name in ("policy", "flips", "exceptions", "report"):
                require(getattr(self, name) == usual[name],
                        f"{name}={getattr(self, name)!r} is about verdicts, which captions do not "
                        "have: leave it out")
