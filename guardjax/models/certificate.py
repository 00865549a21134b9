"""A certificate of a checkpoint: its config, a hash of every tensor, and logits on fixed probes.

Two people who hold certificates can tell whether they hold the same model, and whether it computes
the same, without exchanging weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import guardjax
from guardjax.json_file import read_json, write_json
from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import hub_name
from guardjax.models.hf_weights import WeightsError, load_hf
from guardjax.models.probes import make_probes, probe_logits
from guardjax.models.shards import StoredTensor, open_checkpoint, some

FORMAT = 1
TOLERANCE = 1e-5        # float32 on two machines; relative to the largest logit of a probe
_NUM_SAMPLES = 32
_PIECE_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `certify` found.

    Attributes:
      config: the `config.json` that we would write.
      tensors: hub name -> {"dtype", "shape", "sha256"}, as they are stored.
      probes: name -> {"tokens": T; "next": the likeliest next token; "logit": its logit;
        "largest": the largest magnitude among all logits; "log_sum_exp" of the last position;
        "sample": logits of the last position at evenly spaced token ids; "finite"}.
      made_with: versions and the type that the logits were computed in.
    """

    config: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    probes: dict[str, dict[str, Any]]
    made_with: dict[str, str]

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(t["shape"], dtype=np.int64)) for t in self.tensors.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted({tensor["dtype"] for tensor in self.tensors.values()}))

    @property
    def sha256(self) -> str:
        """One hash of all tensors: names, types, shapes and bytes, but not how they are sharded."""
        return hashlib.sha256(json.dumps(self.tensors, sort_keys=True).encode()).hexdigest()

    @property
    def finite(self) -> bool:
        """Whether every logit of every probe is a number."""
        return all(probe["finite"] for probe in self.probes.values())


def certify(path: str | os.PathLike, *, dtype: str = "float32",
            ) -> tuple[Certificate, ModelConfig, dict[str, np.ndarray]]:
    """Reads a checkpoint directory and asks it the probes.

    Args:
      path: the directory.
      dtype: type of the parameters and of the computation: float32, bfloat16 or float16.

    Returns:
      (the certificate, the config, probe name -> logits [T, V] float32).

    Raises:
      FileNotFoundError, WeightsError, ValueError: as `load_hf`.
    """
    cfg, params = load_hf(path, dtype=dtype)
    cfg = dataclasses.replace(cfg, dtype=dtype)
    logits = {probe.name: probe_logits(params, cfg, probe) for probe in make_probes(cfg)}
    with open_checkpoint(pathlib.Path(path)) as stored:
        tensors = {hub_name(cfg, tensor.name): _fingerprint(tensor)
                   for tensor in sorted(stored, key=lambda tensor: hub_name(cfg, tensor.name))}
    made_with = {"guardjax": guardjax.__version__, "jax": jax.__version__, "dtype": dtype,
                 "device": jax.devices()[0].platform}
    probes = {name: _summary(found) for name, found in logits.items()}
    return Certificate(cfg.to_hf(), tensors, probes, made_with), cfg, logits


def differences(found: Certificate, wanted: Certificate, *, tolerance: float = TOLERANCE,
                ) -> list[str]:
    """What tells two certificates apart, for people; nothing where they are of one model.

    Args:
      found, wanted: certificates of two directories, or of one at two times.
      tolerance: how far logits may lie apart, as a share of the probe's largest.
    """
    said = []
    for key in sorted(found.config.keys() | wanted.config.keys()):
        ours, theirs = found.config.get(key), wanted.config.get(key)
        if ours != theirs:
            said.append(f"config: {key} is {_told(ours, theirs)}")
    for problem, names in (
            ("missing", wanted.tensors.keys() - found.tensors.keys()),
            ("not in the other", found.tensors.keys() - wanted.tensors.keys()),
            ("different", {name for name, tensor in found.tensors.items()
                           if name in wanted.tensors and tensor != wanted.tensors[name]})):
        if names:
            said.append(f"tensors: {len(names)} {problem}: {some(sorted(names))}")
    for name in {**wanted.probes, **found.probes}:
        ours, theirs = found.probes.get(name), wanted.probes.get(name)
        error = np.inf if ours is None or theirs is None else _apart(ours, theirs)
        if not error <= tolerance:      # also where it is no number
            said.append(f"probe “{name}”: logits lie {error:.1e} apart, the limit is "
                        f"{tolerance:.1e}")
    return said


def save_certificate(certificate: Certificate, file: str | os.PathLike) -> None:
    """Writes it as JSON."""
    write_json(pathlib.Path(file), {"format": FORMAT, **dataclasses.asdict(certificate)})


def load_certificate(file: str | os.PathLike) -> Certificate:
    """Reads what `save_certificate` wrote.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: something else, or a certificate of another format.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no certificate {file}; `guardjax verify DIR --out FILE` "
                                "writes one")
    raw = read_json(file, WeightsError)
    fields = {field.name for field in dataclasses.fields(Certificate)}
    if raw.get("format") != FORMAT or not all(isinstance(raw.get(f), Mapping) for f in fields):
        raise WeightsError(f"{file} is no certificate of format {FORMAT}; write it again with "
                           "`guardjax verify DIR --out FILE`")
    return Certificate(**{field: raw[field] for field in fields})


def _fingerprint(tensor: StoredTensor) -> dict[str, Any]:
    digest = hashlib.sha256()
    for start in range(0, tensor.shape[0], _PIECE_ROWS):
        rows = slice(start, min(start + _PIECE_ROWS, tensor.shape[0]))
        piece = tensor.read((rows, *(slice(None),) * (len(tensor.shape) - 1)))
        digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": digest.hexdigest()}


def _summary(logits: np.ndarray) -> dict[str, Any]:
    last = logits[-1].astype(np.float64)
    top = int(last.argmax())
    ids = np.linspace(0, len(last) - 1, _NUM_SAMPLES).astype(int)
    return {"tokens": len(logits), "next": top, "logit": float(last[top]),
            "largest": float(np.abs(logits).max()),
            "log_sum_exp": float(last[top] + np.log(np.exp(last - last[top]).sum())),
            "sample": last[ids].tolist(), "finite": bool(np.isfinite(logits).all())}


def _apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """The largest difference of two summaries, as a share of the largest logit."""
    a, b = ([*summary["sample"], summary["log_sum_exp"], summary["largest"]]
            for summary in (ours, theirs))
    if ours["tokens"] != theirs["tokens"] or len(a) != len(b):
        return float(np.inf)
    return float(np.abs(np.subtract(a, b)).max() / theirs["largest"])


def _told(ours: Any, theirs: Any) -> str:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = sorted(key for key in ours.keys() | theirs.keys()
                      if ours.get(key) != theirs.get(key))
        return "different in " + ", ".join(
            f"{key} ({ours.get(key)!r}, not {theirs.get(key)!r})" for key in keys)
    return f"{ours!r}, not {theirs!r}"
