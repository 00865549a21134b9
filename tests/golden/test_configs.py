"""What every config file means, every default filled in: a change shows in all runs it hits."""

import difflib
import pathlib

import pytest

from .make_configs import GOLDEN, config_files, resolved

FIX = "; if that is meant, run: python tests/golden/make_configs.py"


@pytest.mark.parametrize("file", config_files(), ids=str)
def test_a_config_resolves_to_its_kept_text(file: pathlib.Path) -> None:
    kept = (GOLDEN / file).with_suffix(".txt")
    assert kept.is_file(), f"configs/{file} has no kept text{FIX}"
    old, new = kept.read_text(encoding="utf-8"), resolved(file)
    diff = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "kept", f"configs/{file}", n=0, lineterm="")
    assert old == new, f"configs/{file} resolves to something else{FIX}\n" + "\n".join(diff)


def test_every_kept_text_has_its_config() -> None:
    kept = {file.relative_to(GOLDEN).with_suffix(".py") for file in GOLDEN.rglob("*.txt")}
    gone = sorted(map(str, kept - set(config_files())))
    assert not gone, f"no config for the kept texts of {', '.join(gone)}{FIX}"
    assert kept
