"""Draws the two pictures of the README with the world's own code.

    .venv/bin/python experiments/safeguard_vl/make_examples.py

Objects by OpenMoji (CC BY-SA 4.0) over photographs from scikit-image (see `guardjax data card`).
"""

from __future__ import annotations

import json
import pathlib

from PIL import Image

from guardjax.world.scene import SceneSpec, dress, render, scene_rng

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "guardjax" / "assets" / "examples"
SCENES = {"knife.png": (7, ["knife", "apple"]), "dog.png": (3, ["dog", "spoon"])}
SPEC = SceneSpec(split="test", dark_share=0.0)


def main() -> None:
    """Writes the pictures, and what is true of them."""
    truth = {}
    for name, (seed, objects) in SCENES.items():
        scene = dress(seed, SPEC, objects, scene_rng("test", seed, "example"))
        Image.fromarray(render(scene)).save(FOLDER / name, optimize=True)
        truth[name] = {"objects": list(scene.names),
                       "context": {"place": scene.place, "light": scene.light}}
    (FOLDER / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
