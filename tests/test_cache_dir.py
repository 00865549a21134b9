"""One place for everything that can be made again."""

import pathlib

import pytest

from guardjax.cache_dir import cache_dir


@pytest.mark.parametrize("own, xdg, found", [
    ("/big/disk", "/xdg", "/big/disk"),
    ("~/mine", None, "~/mine"),
    ("", "/xdg", "/xdg/guardjax"),
    (None, "", "~/.cache/guardjax"),
    (None, None, "~/.cache/guardjax"),
])
def test_ours_before_the_system_s_before_home(monkeypatch, own, xdg, found):
    for name, value in (("GUARDJAX_CACHE_DIR", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_dir() == pathlib.Path(found).expanduser()


def test_no_other_code_asks_the_environment():
    package = pathlib.Path(__file__).resolve().parents[1] / "guardjax"
    asking = [file.name for file in package.rglob("*.py")
              if any(word in file.read_text() for word in ("GUARDJAX_CACHE", "XDG_CACHE_HOME"))]
    assert asking == ["cache_dir.py"]
