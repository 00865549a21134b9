"""The notebooks, run from the first cell to the last on the tiny model (extra `[notebooks]`).

Needs nbclient and a kernel, which `make test-slow` installs and nothing else does.
"""

import json
import os
import pathlib
import sys

import pytest

COLAB = pathlib.Path(__file__).parents[2] / "colab"
NOTEBOOKS = sorted(path.name for path in COLAB.glob("*.ipynb"))
# Few steps: what is tested is that every cell does its work.
SMALL = {"STEPS": "12", "PAIRS": "2", "PICTURES": "32", "SFT": "10", "GRPO": "10", "RANK": "2"}


def test_all_notebooks_are_there_and_hold_no_results():
    assert NOTEBOOKS == ["bring_your_own_policy.ipynb", "quickstart.ipynb",
                         "qwen2_5_vl_7b_lora.ipynb"]
    for name in NOTEBOOKS:
        for cell in json.loads((COLAB / name).read_text())["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.fixture(name="own_pictures", scope="module")
def _own_pictures(tmp_path_factory):
    """What the second notebook makes, for the third."""
    from PIL import Image

    from guardjax.world.scene import render, sample_scene

    folder = tmp_path_factory.mktemp("pictures")
    lines = ["image,label,category,split"]
    for seed in range(24):
        scene = sample_scene(seed)
        Image.fromarray(render(scene)).save(folder / f"{seed}.png")
        unsafe = scene.attributes().counts.get("animals", 0) > 0
        lines.append(f"{seed}.png,{'unsafe,R1' if unsafe else 'safe,'},"
                     f"{'train' if seed % 4 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text(
        "schema: 1\nid: mine\nversion: '1'\ntitle: Mine\n"
        "rules:\n- {id: R1, severity: high, when: animals, wordings: [no animals]}\n")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs(name, tmp_path, monkeypatch, own_pictures):
    import nbformat
    from nbclient import NotebookClient

    checkout = tmp_path / "checkout"        # runs/ lands here, all else is the repository's
    checkout.mkdir()
    for entry in ("setup.py", "guardjax", "configs", "experiments"):
        (checkout / entry).symlink_to(COLAB.parent / entry)
    for key, value in SMALL.items():
        monkeypatch.setenv(f"GUARDJAX_NOTEBOOK_{key}", value)
    monkeypatch.setenv("GUARDJAX_NOTEBOOK_MODEL", "base")
    monkeypatch.setenv("GUARDJAX_NOTEBOOK_FOLDER", str(own_pictures))
    monkeypatch.setenv("GUARDJAX_NOTEBOOK_POLICY", str(own_pictures / "policy.yaml"))
    monkeypatch.setenv("GUARDJAX_CHECKOUT", str(checkout))
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    notebook = nbformat.read(COLAB / name, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=900, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "\n".join(output.get("text", "") for cell in notebook.cells
                        for output in cell.get("outputs", ()))
    # A command that fails in a cell stops no notebook, so its words are looked for.
    for sign in ("Traceback", "error:", "guardjax train:", "guardjax eval:", "guardjax judge:",
                 "guardjax data:", "command not found"):
        assert sign not in printed, printed
    made = {"quickstart.ipynb": ("grpo/model", "eval/report.html", "verdicts.jsonl"),
            "bring_your_own_policy.ipynb": ("own/model", "own/verdicts.jsonl"),
            "qwen2_5_vl_7b_lora.ipynb": ("lora/model", "my-guard/config.json", "lora/adapter")}
    for path in made[name]:
        assert (checkout / "runs" / "colab" / path).exists(), printed
