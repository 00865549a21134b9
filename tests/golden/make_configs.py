"""Writes the resolved text of every config file to tests/golden/configs/.

After a config was changed on purpose:

    python tests/golden/make_configs.py

and look at the difference before it is committed: it is what the change does to every run.
"""

from __future__ import annotations

import pathlib
import shutil

from guardjax.cli.compose import load_config
from guardjax.train.config import to_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
GOLDEN = ROOT / "tests" / "golden" / "configs"


def config_files() -> list[pathlib.Path]:
    """Files that define a run, relative to `configs/`; what they share between them is left out."""
    return sorted(file.relative_to(CONFIGS) for file in CONFIGS.rglob("*.py")
                  if "\ndef get_config(" in file.read_text(encoding="utf-8"))


def resolved(file: pathlib.Path) -> str:
    """The text of a config with every default filled in."""
    return to_text(load_config(str(CONFIGS / file)))


def main() -> None:
    """Writes them all, and removes those of files that are gone."""
    texts = {file: resolved(file) for file in config_files()}  # one that fails costs no kept text
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for file, text in texts.items():
        path = (GOLDEN / file).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
