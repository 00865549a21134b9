"""The names of the back ends, what each can do, and the choice among them before any compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax

BACKENDS = ("auto", "xla", "cudnn", "splash")

_KERNEL_OF = {"gpu": "cudnn", "tpu": "splash"}
_DTYPES = {"cudnn": ("bfloat16", "float16"), "splash": ("bfloat16", "float32")}
_HEAD_MULTIPLE = 8
_LARGEST_HEAD = 256
_LARGEST_HEAD_BEFORE_HOPPER = 128
_AMPERE, _HOPPER = (8, 0), (9, 0)


class AttentionError(ValueError):
    """A back end that is unknown or cannot do what is asked; says what could be asked instead."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What a back end needs to know of the device."""

    platform: str                               # "cpu", "gpu" or "tpu"
    capability: tuple[int, int] | None = None   # CUDA compute capability; None for anything else


def this_device() -> Device:
    """The device that programs are made for: that of the mesh which is set, which may be a
    description only, else the one that JAX computes on by default."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None and described.platform != jax.default_backend():
        return Device(described.platform)
    device = jax.devices()[0]
    try:
        major, minor = str(getattr(device, "compute_capability", "")).split(".")
        return Device(jax.default_backend(), (int(major), int(minor)))
    except ValueError:
        return Device(jax.default_backend())


def check_name(name: str) -> None:
    """Checks that there is a back end of this name.

    Raises:
        AttentionError: there is not.
    """
    if name not in BACKENDS:
        raise AttentionError(f"attention={name!r} is no back end; choose one of "
                             f"{', '.join(map(repr, BACKENDS))}")


def choose_backend(name: str, *, head_dims: Mapping[str, int], dtype: str,
                   device: Device | None = None) -> str:
    """The back end that a name stands for: "xla", "cudnn" or "splash".

    "auto" is the kernel of the platform where it can do the model, else "xla". Asked for by name,
    a kernel is used or refused, never replaced.

    Args:
        name: one of `BACKENDS`.
        head_dims: size of a head by the part of the model, such as {"text": 128, "vision": 80}.
        dtype: the compute type.
        device: what it runs on; by default `this_device()`.

    Raises:
        AttentionError: an unknown name, or a kernel that cannot do this on this device.
    """
    check_name(name)
    if name == "xla":
        return name
    device = this_device() if device is None else device
    kernel = _KERNEL_OF.get(device.platform, "xla") if name == "auto" else name
    problem = None if kernel == "xla" else _problem(kernel, head_dims, dtype, device)
    if problem is None:
        return kernel
    if name == "auto":
        return "xla"
    raise AttentionError(f"attention={name!r} {problem}, or choose attention='xla'")


def _problem(kernel: str, head_dims: Mapping[str, int], dtype: str, device: Device) -> str | None:
    """Why the kernel cannot do it, up to the way out, or None."""
    return (_device_problem(kernel, device) or _dtype_problem(kernel, dtype)
            or _head_problem(kernel, head_dims, device))


def _device_problem(kernel: str, device: Device) -> str | None:
    if kernel == "splash":
        return (None if device.platform == "tpu" else
                f"needs a TPU, and this process computes on {device.platform!r}: start it on one")
    if device.platform != "gpu" or device.capability is None:
        return (f"needs an NVIDIA GPU, and this process computes on {device.platform!r}: start it "
                "on one")
    if device.capability < _AMPERE:
        return (f"needs compute capability {_AMPERE[0]}.{_AMPERE[1]} (Ampere), and this GPU has "
                f"{device.capability[0]}.{device.capability[1]}: use a newer one")
    return None


def _dtype_problem(kernel: str, dtype: str) -> str | None:
    if dtype in _DTYPES[kernel]:
        return None
    return (f"computes in {' or '.join(_DTYPES[kernel])}, and dtype is {dtype!r}: set "
            f"dtype={_DTYPES[kernel][0]!r}")


def _head_problem(kernel: str, head_dims: Mapping[str, int], device: Device) -> str | None:
    most = _LARGEST_HEAD
    if kernel == "cudnn" and (device.capability or _AMPERE) < _HOPPER:
        most = _LARGEST_HEAD_BEFORE_HOPPER
    for part, size in head_dims.items():
        if size > most or size % _HEAD_MULTIPLE:
            return (f"takes heads of at most {most} numbers, a multiple of {_HEAD_MULTIPLE}, and "
                    f"those of {part} have {size}: take another model")
    return None
