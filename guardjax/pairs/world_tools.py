"""Exact tools for pictures of the policy world: they know the scene behind each picture."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable

import numpy as np

from guardjax.pairs.tools import Assessment, ToolError
from guardjax.policies import Policy
from guardjax.world import catalogue
from guardjax.world.language import article, caption
from guardjax.world.scene import Scene, render, scene_rng

_INSTRUCTION = re.compile(r"replace the ([\w ]+?) by an? ([\w ]+)")


class WorldStudio:
    """Assessor and editor in one. A picture that it did not render is not known to it.

    The edit keeps everything but one object in place; where the policy objects to several, it
    takes as many edits, which the instruction names one after the other.
    """

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self.identity = "policy world"
        self._scenes: dict[str, Scene] = {}
        for scene in scenes:
            self._keep(scene)

    @property
    def pictures(self) -> list[np.ndarray]:
        """The scenes that it was made with, rendered."""
        return [render(scene) for scene in self._scenes.values()]

    def assess(self, picture: np.ndarray, policy: Policy, attempt: int = 0) -> Assessment:
        """See `tools.Assessor`; the first scene of allowed stand-ins in a fixed random order.

        Raises:
          ToolError: a picture of somebody else's, or one that no stand-ins make allowed.
        """
        scene = self._scene(picture)
        if policy.judge(scene.attributes()).verdict == "safe":
            return Assessment("")
        harmless = [name for name in catalogue.objects_of_split(scene.split)
                    if not catalogue.is_harmful(name)]
        rng = scene_rng(scene.split, scene.seed, f"studio {attempt}")
        steps = []
        for place in rng.permutation(len(scene.objects)):
            name = scene.objects[place].name
            for other in rng.permutation(harmless):
                changed = _replaced(scene, int(place), str(other))
                if _offences(policy, changed) < _offences(policy, scene):
                    steps.append(f"replace the {name} by {article(other)} {other}")
                    scene = changed
                    break
            if policy.judge(scene.attributes()).verdict == "safe":
                return Assessment("; ".join(steps))
        raise ToolError(f"no harmless objects make the scene of {', '.join(scene.names)} allowed "
                        f"under {policy.id}: leave this picture out")

    def caption(self, picture: np.ndarray) -> str:
        """A draft that keeps silent about harm, as a model that was trained to please would."""
        scene = self._scene(picture)
        names = [name for name in scene.names if not catalogue.is_harmful(name)]
        return f"{', '.join(names) or 'an object'}. {scene.place}, {scene.light}."

    def restore(self, picture: np.ndarray, draft: str) -> str:
        """All that is to be seen."""
        del draft
        return caption(self._scene(picture))

    def edit(self, picture: np.ndarray, instruction: str, attempt: int = 0) -> np.ndarray:
        """See `tools.Editor`.

        Raises:
          ToolError: a picture of somebody else's, or an instruction that is none of ours.
        """
        del attempt
        scene = self._scene(picture)
        for step in instruction.split("; "):
            found = _INSTRUCTION.fullmatch(step)
            place = next((i for i, placed in enumerate(scene.objects)
                          if found and placed.name == found[1]), None)
            if place is None or found[2] not in catalogue.THINGS:
                raise ToolError(f"{step!r} is no edit of a scene with {', '.join(scene.names)}")
            scene = _replaced(scene, place, found[2])
        self._keep(scene)
        return render(scene)

    def _keep(self, scene: Scene) -> None:
        self._scenes[_key(render(scene))] = scene

    def _scene(self, picture: np.ndarray) -> Scene:
        try:
            return self._scenes[_key(picture)]
        except KeyError:
            raise ToolError("the picture is none of the policy world's: for pictures of your own "
                            "give an assessor and an editor (--assessor-url, --editor-url)"
                            ) from None


def _offences(policy: Policy, scene: Scene) -> tuple[int, int]:
    """Rules that the scene breaks, then its harmful objects: fewer is nearer to allowed."""
    return (len(policy.judge(scene.attributes()).rule_ids),
            sum(catalogue.is_harmful(name) for name in scene.names))


def _replaced(scene: Scene, place: int, name: str) -> Scene:
    objects = list(scene.objects)
    objects[place] = dataclasses.replace(objects[place], name=name)
    return dataclasses.replace(scene, objects=tuple(objects))


def _key(picture: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
