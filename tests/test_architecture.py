"""The map in ARCHITECTURE.md is true: who may import whom, and what `import guardjax` touches."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "guardjax"
GROUND = {"types", "layout", "atomic", "json_file", "cache_dir", "policies"}
MAY_IMPORT = {
    "types": set(),
    "atomic": set(),
    "json_file": {"atomic"},
    "cache_dir": set(),
    "layout": {"types"},
    "policies": set(),
    "world": GROUND,
    "data": GROUND | {"world"},
    "models": GROUND,
    "rewards": GROUND,
    "rl": GROUND,
    "engines": GROUND | {"rl", "models", "data"},
    "train": GROUND | {"rl", "models", "data", "rewards"},
    "scale": GROUND | {"train", "rl", "models", "data"},
    "eval": GROUND | {"models", "rl", "data", "world", "rewards"},
    "pairs": GROUND | {"world", "data"},
    "rollouts": GROUND | {"rewards", "train", "eval"},
    "cli": None,  # composes everything
}


def parts_imported(source: str) -> set[str]:
    """The parts of guardjax that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "guardjax" and len(pieces) > 1:
                found.add(pieces[1])
    return found


def files() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", files(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_arrows(file: pathlib.Path) -> None:
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imported = parts_imported(file.read_text()) - {part, "__version__"}
    if part == "__init__":
        assert not imported
    elif MAY_IMPORT[part] is not None:
        assert imported <= MAY_IMPORT[part], f"{file} imports {sorted(imported - MAY_IMPORT[part])}"


def test_a_wrong_arrow_is_seen() -> None:
    assert parts_imported("def f():\n    from guardjax.models import load_hf") == {"models"}
    assert parts_imported("import guardjax.cli.main") == {"cli"}


def test_import_is_light() -> None:
    code = ("import guardjax, sys; "
            "print([m for m in ('jax', 'tensorflow', 'torch') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
