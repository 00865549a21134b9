"""Image features of a frozen tower on disk, so that a picture is encoded once, not once a step.

A file's name is a hash of all that the features follow from: the pixels and where they stand, the
tower's weights and config, and the compute type. So a changed tower finds nothing of another's.
Pictures are encoded one by one: what a batch gets does not depend on which of its pictures were
known before, to the last bit. Files are written in one step and carry a hash of their content; one
that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.atomic import write_bytes
from guardjax.types import Array, VisionInputs

# Part of every name: to be raised when the code of the tower computes something else.
VERSION = 1
_HASH_BYTES = 32


class FeatureCache:
    """Features by picture, kept in a folder.

    Attributes:
      encoded, read: pictures that went through the tower, and that came from disk.
    """

    def __init__(self, folder: pathlib.Path, encode: Callable[[Any, VisionInputs], Array],
                 about: str) -> None:
        """`encode(params, vision)` gives [B, U, D]; `about` is all of the model's config that it
        follows from, the compute type included."""
        self._folder, self._about = folder, f"{VERSION}\n{about}"
        self._encode = jax.jit(encode)
        self._tower: tuple[Any, bytes] | None = None    # parameters and their hash
        self.encoded = self.read = 0

    def features(self, params: Any, vision: VisionInputs) -> jax.Array:
        """Features [I, U, D] as `rl.model_fns.encode_vision` gives them, of frozen parameters.

        Raises:
          OSError: the folder cannot be written.
        """
        lead = vision.frame.shape[:-1]
        flat = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[len(lead):]),
                            vision)
        tower = self._digest(params["visual"])
        rows = [self._row(params, tower, jax.tree.map(lambda leaf, i=i: leaf[i:i + 1], flat))
                for i in range(math.prod(lead))]
        found = jnp.stack(rows)
        return found.reshape(lead[0], -1, found.shape[-1])

    def _row(self, params: Any, tower: bytes, picture: VisionInputs) -> jax.Array:
        digest = hashlib.sha256(tower)
        for leaf in jax.tree.leaves(picture):
            digest.update(f"{leaf.dtype}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf))
        name = digest.hexdigest()
        file = self._folder / name[:2] / name
        shape = jax.eval_shape(self._encode, params, picture)
        if (kept := _read(file, shape)) is not None:
            self.read += 1
            return kept[0]
        self.encoded += 1
        found = jax.device_get(self._encode(params, picture))
        data = found.tobytes()
        write_bytes(file, hashlib.sha256(data).digest() + data)
        return jnp.asarray(found)[0]

    def _digest(self, tower: Any) -> bytes:
        """Of the tower's weights and of what it is; weighed anew when it is another tree."""
        if self._tower is None or self._tower[0] is not tower:
            digest = hashlib.sha256(self._about.encode())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tower):
                leaf = np.asarray(leaf)
                digest.update(f"{jax.tree_util.keystr(path)}{leaf.dtype}{leaf.shape}".encode())
                digest.update(np.ascontiguousarray(leaf).view(np.uint8))
            self._tower = (tower, digest.digest())
        return self._tower[1]


def _read(file: pathlib.Path, shape: jax.ShapeDtypeStruct) -> jax.Array | None:
    """What a whole file holds; None where there is none, or it is damaged."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    data = content[_HASH_BYTES:]
    if hashlib.sha256(data).digest() != content[:_HASH_BYTES]:
        return None
    return jnp.asarray(np.frombuffer(data, shape.dtype).reshape(shape.shape))
