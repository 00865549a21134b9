"""Build the policy world on disk once, and read it back by index.

A build lives in a directory whose name has a digest of all that decides its content. It is made
beside its final place and renamed when complete, so that a half-built directory is never used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from guardjax.world import catalogue
from guardjax.world.beam_build import BeamBuild
from guardjax.world.record import WorldRecord, decode
from guardjax.world.scene import SceneSpec
from guardjax.world.sprites import noto_available, sprite_key

__all__ = [
    "DEFAULT_SIZES", "IncompleteBuild", "WorldRecord", "WorldSource", "build", "load", "splits",
]

DEFAULT_SIZES: Mapping[str, int] = MappingProxyType({
    "train": 4000, "dev": 300, "test": 500,
    "test_background": 200, "test_artist": 200, "test_object": 200,
})

_STAMP = "complete.json"
_LOG = logging.getLogger(__name__)


class IncompleteBuild(RuntimeError):
    """A directory is not a complete build of the policy world."""


class WorldSource:
    """Records of one split by index: a random-access source as grain takes it.

    Records 2k and 2k + 1 are the members of pair k, before and after. Reading decodes the PNG.
    """

    def __init__(self, directory: Path, split: str):
        self.directory, self.split = Path(directory), split
        with _quiet_tfds():
            import tensorflow_datasets as tfds

            dataset = tfds.builder_from_directory(_dataset_folder(self.directory))
            # PNG stays as it is: `decode` opens it with Pillow, which needs no OpenCV.
            raw = tfds.decode.SkipDecoding()
            self._source = dataset.as_data_source(split, decoders={"image": raw, "mask": raw})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> WorldRecord:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of split {self.split}, which has {len(self)}")
        return decode(self._source[index % len(self)], self.split)

    def __iter__(self) -> Iterator[WorldRecord]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self):
        # Worker processes open the files for themselves.
        return WorldSource, (self.directory, self.split)

    def __repr__(self) -> str:
        return f"WorldSource({str(self.directory)!r}, {self.split!r})"


def build(
    data_dir: str | os.PathLike,
    sizes: Mapping[str, int] = DEFAULT_SIZES,
    seed: int = 0,
    spec: SceneSpec = SceneSpec(),
    *,
    progress: bool = True,
    beam: BeamBuild | None = None,
) -> Path:
    """Make the dataset under `data_dir`, or find the same one made before; returns its directory.

    `sizes` is pairs a split (two records each). `spec.split` and `spec.artist` are ignored: every
    split has its own. Without the second artist's font `test_artist` is left out, with a notice.
    With `beam` its workers make the pairs, and what is built is the same.

    Raises:
        ValueError: an unknown split, a negative size, or nothing to build.
    """
    _check_sizes(sizes)
    sizes, left_out = {split: pairs for split, pairs in sizes.items() if pairs}, {}
    if "test_artist" in sizes and not noto_available():
        left_out["test_artist"] = "the Noto Color Emoji font is not installed"
        del sizes["test_artist"]
        _LOG.warning("split test_artist is left out: %s", left_out["test_artist"])
    spec = dataclasses.replace(spec, split="train", artist=None)
    recipe = _recipe(sizes, seed, spec)
    directory = Path(data_dir) / f"policy_world-{_digest(recipe)}"
    with contextlib.suppress(IncompleteBuild):
        check_complete(directory)
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _import_tfds()
        if beam is not None:
            _write_with_beam(workshop, sizes, seed, spec, beam)
        else:
            with _progress(sum(sizes.values()), progress) as advance:
                _write(workshop, sizes, seed, spec, advance)
        from guardjax.world.card import data_card

        stamp = {
            "recipe": recipe, "left_out": left_out,
            "files": {
                str(file.relative_to(workshop)): file.stat().st_size
                for file in sorted(workshop.rglob("*")) if file.is_file()
            },
        }
        (workshop / _STAMP).write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
        (workshop / "CARD.md").write_text(data_card(workshop), encoding="utf-8")
        _publish(workshop, directory)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return directory


def load(directory: str | os.PathLike, split: str) -> WorldSource:
    """Records of a split of a complete build.

    Raises:
        IncompleteBuild: the directory is not a complete build, or a file of it was changed.
        ValueError: the build has no such split.
    """
    directory = Path(directory)
    available = splits(directory)
    if split not in available:
        why = check_complete(directory)["left_out"].get(split, "it was not asked for")
        raise ValueError(
            f"the build {directory} has no split {split!r} ({why}); "
            f"it has {', '.join(available)}"
        )
    return WorldSource(directory, split)


def splits(directory: str | os.PathLike) -> dict[str, int]:
    """Split -> number of pairs of a complete build. Raises `IncompleteBuild`."""
    return dict(check_complete(Path(directory))["recipe"]["sizes"])


def check_complete(directory: Path) -> dict:
    """The stamp of a complete build. Raises `IncompleteBuild` with what is wrong."""
    path = directory / _STAMP
    fix = "run the build again"
    try:
        stamp = json.loads(path.read_text())
        files = stamp["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompleteBuild(f"{path} is missing or unreadable ({error}); {fix}") from error
    for name, size in files.items():
        file = directory / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise IncompleteBuild(f"{file} has {found} bytes instead of {size}; {fix}")
    return stamp


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for split, pairs in sizes.items():
        if split not in catalogue.SPLITS:
            raise ValueError(
                f"split {split!r} does not exist; choose from {', '.join(catalogue.SPLITS)}"
            )
        if pairs < 0:
            raise ValueError(f"split {split!r} has size {pairs}; give 0 pairs or more")
    if not any(sizes.values()):
        raise ValueError("there is nothing to build; give pairs for a split, like train=100")


def _recipe(sizes: Mapping[str, int], seed: int, spec: SceneSpec) -> dict:
    """All that decides the content of a build, ready for JSON."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.name not in ("card.py", "sheet.py", "__init__.py"):
            code.update(file.name.encode() + b"\0" + file.read_bytes())
    artists = ["openmoji"] + ["noto"] * ("test_artist" in sizes)
    look = dataclasses.asdict(spec)
    del look["split"], look["artist"]
    return {
        "sizes": dict(sizes),
        "seed": seed,
        "spec": json.loads(json.dumps(look)),
        "code": code.hexdigest()[:16],
        "sprites": {artist: sprite_key(artist) for artist in artists},
        "photographs": {
            name: metadata.version(name) for name in ("scikit-image", "scikit-learn")
        },
    }


def _digest(recipe: dict) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def _dataset_folder(directory: Path) -> Path:
    return directory / "policy_world" / "1.0.0"


def _write(
    folder: Path,
    sizes: Mapping[str, int],
    seed: int,
    spec: SceneSpec,
    advance: Callable[[], None],
) -> None:
    with _quiet_tfds():
        from guardjax.world.tfds_dataset import PolicyWorld

        PolicyWorld(
            sizes=sizes, seed=seed, spec=spec, on_pair=advance, data_dir=folder
        ).download_and_prepare()


def _write_with_beam(folder: Path, sizes: Mapping[str, int], seed: int, spec: SceneSpec,
                     beam: BeamBuild) -> None:
    with _quiet_tfds():
        from guardjax.world.tfds_dataset import PolicyWorld

        def write(place: str | os.PathLike) -> None:
            PolicyWorld(
                sizes=sizes, seed=seed, spec=spec, beam=True, data_dir=place
            ).download_and_prepare(download_config=beam.download_config())

        beam.write_to(folder, write)


def _import_tfds() -> None:
    """Imports TFDS while nothing else runs.

    While it is imported, `import` means something else in every thread (etils' lazy imports), and
    the thread that draws our progress bar would die of it.
    """
    with _quiet_tfds():
        import guardjax.world.tfds_dataset  # noqa: F401


def _publish(workshop: Path, directory: Path) -> None:
    """Move a finished build to its place; what is there and not complete gives way."""
    if directory.exists():
        with contextlib.suppress(IncompleteBuild):
            check_complete(directory)
            return    # another process was faster, with the same content
        broken = workshop.with_name(workshop.name + "-broken")
        os.replace(directory, broken)
        os.replace(workshop, directory)
        shutil.rmtree(broken, ignore_errors=True)
        return
    os.replace(workshop, directory)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """TFDS without its progress bars and chatter; our own bar, on stderr, is shown instead."""
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.WARNING)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logger.setLevel(level)


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar with time left, counted in pairs; yields the function that advances it."""
    if not shown:
        yield lambda: None
        return
    from rich import console, progress

    columns = (
        progress.TextColumn("building the policy world"), progress.BarColumn(),
        progress.MofNCompleteColumn(), progress.TextColumn("pairs"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
