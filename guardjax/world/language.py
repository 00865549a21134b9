"""Ground truth in words: a caption and a few questions with answers, from the scene alone."""

from __future__ import annotations

from guardjax.world import catalogue
from guardjax.world.scene import Scene, scene_rng


def caption(scene: Scene) -> str:
    """Objects in reading order, place and light on one line: "knife, dog. garden, dark."."""
    return f"{', '.join(scene.names)}. {scene.place}, {scene.light}."


def questions(scene: Scene, seed: int) -> list[tuple[str, str]]:
    """Eight short questions with their answers; of each yes-or-no kind one is yes and one is no.

    What is asked about depends on `seed` and on the scene. Half of the objects that are asked for
    in vain resemble one that is there.
    """
    rng = scene_rng(scene.split, seed, "questions")

    def choose(items):
        items = sorted(items)
        return items[int(rng.integers(len(items)))]

    allowed = set(catalogue.objects_of_split(scene.split))
    present = set(scene.names)
    kinds = {catalogue.CATEGORY_OF[name] for name in present}
    similar = {
        name
        for shown in present
        for name in _resembling(shown)
        if name in allowed and name not in present
    }
    absent = choose(similar) if similar and rng.random() < 0.5 else choose(allowed - present)
    there, asked = choose(present), choose(present)
    return [
        (f"is there {article(there)} {there}?", "yes"),
        (f"is there {article(absent)} {absent}?", "no"),
        (f"any {choose(kinds)}?", "yes"),
        (f"any {choose(set(catalogue.CATEGORIES) - kinds)}?", "no"),
        ("how many objects?", str(len(scene.objects))),
        (f"what kind is the {asked}?", catalogue.CATEGORY_OF[asked]),
        ("where is it?", scene.place),
        ("bright or dark?", scene.light),
    ]


def article(name: str) -> str:
    """The indefinite article that a name takes."""
    return "an" if name[0] in "aeiou" else "a"


def _resembling(name: str) -> tuple[str, ...]:
    """Objects of similar looks, in either direction of the look-alike table."""
    return catalogue.LOOK_ALIKES.get(name, ()) + tuple(
        harmful for harmful, harmless in catalogue.LOOK_ALIKES.items() if name in harmless
    )
