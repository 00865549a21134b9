"""Published peaks of devices, by the name that JAX gives them: what MFU is a share of."""

from __future__ import annotations

from guardjax.scale.chips import CHIPS

_H100 = "NVIDIA H100 and H200 data sheets, BF16 tensor core, SXM, without sparsity"

# (start of `device_kind`, bf16 FLOPs a second, source); the first that fits.
_PEAKS = (
    ("TPU v5 lite", CHIPS["v5e"].peak_flops, CHIPS["v5e"].source),
    ("TPU v5e", CHIPS["v5e"].peak_flops, CHIPS["v5e"].source),
    ("TPU v5", CHIPS["v5p"].peak_flops, CHIPS["v5p"].source),
    ("TPU v6", CHIPS["v6e"].peak_flops, CHIPS["v6e"].source),
    ("TPU v4", 275e12, "Google Cloud, Cloud TPU documentation, page TPU v4"),
    ("NVIDIA H100 80GB HBM3", 989.4e12, _H100),
    ("NVIDIA H200", 989.4e12, _H100),
    ("NVIDIA A100", 312e12, "NVIDIA A100 data sheet, BF16 tensor core, without sparsity"),
)


def peak_flops(device_kind: str) -> float:
    """bf16 FLOPs a second of one device; 0.0 where none is known, as for CPUs."""
    return next((peak for start, peak, _ in _PEAKS if device_kind.startswith(start)), 0.0)
