"""What a program's output is compared with, and how far from it it may be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.inference.runtimes import original_program

__all__ = ["ROUNDINGS", "Reference", "full_float32", "reference_of", "relative_error", "why_not_comparable"]

ROUNDINGS = 3
"""How many times the model's own error a program may have, where the model itself computes in TF32 or bfloat16.

Both round every product, each in its own way: folded weights, for one, round to other numbers. So the ratio of the two errors
varies from model to model. With TF32 rounding emulated on the CPU, on four U-Nets x 12 random weights x 3 sizes, it was 0.53 to
1.72 (median 1.0); the largest seen, 2.2, was that of the folded `unet-bilinear` in `tests/inference/deployment/test_tf32.py`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The output that is right, and what may take its place.

    Attributes:
        output: the model's own, in float32.
        error: max|a - b| / max|b| of the given model's output to `output`. It is 0 on devices that compute in float32;
            by default CUDA devices round the operands of convolutions to TF32.
        accepted: the largest error that a program may have: the tolerance, or more where the model itself has more.
    """

    output: Tensor
    error: float
    accepted: float


def reference_of(model: nn.Module, image: Tensor, tolerance: float, precision: str = "float32") -> Reference:
    """Return what a model gives for an image, and what is near enough to it.

    Args:
        model: in evaluation mode.
        image: (N, C, H, W).
        tolerance: the error that is accepted whatever the model's own.
        precision: that the model is run in as it was given: "bfloat16" is autocast.

    Raises:
        Exception: what the model raises.
    """
    given = original_program(model, precision)(image)
    if (image.device.type != "cuda" and precision == "float32") or not isinstance(given, Tensor):
        return Reference(output=given, error=0.0, accepted=tolerance)
    with full_float32():
        output = original_program(model)(image)
    error = relative_error(given, output)
    return Reference(output=output, error=error, accepted=max(tolerance, ROUNDINGS * error))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return max|found - expected| / max|expected|; infinity for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    largest = float(expected.abs().max())
    difference = float((found.to(expected.dtype) - expected).abs().max())
    return difference / largest if largest else difference


def why_not_comparable(output: Tensor) -> str | None:
    """Return why nothing can be compared with a model's own output; None where something can."""
    if not (count := int((~output.isfinite()).sum())):
        return None
    return (
        f"The model itself gives NaN or infinity in {count:,} of {output.numel():,} logits, so that nothing can be compared "
        "with it. Its weights may be those of a training that diverged, or the image is not normalized as it expects."
    )


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Let CUDA devices multiply float32 as it is. The setting is the process's, and is put back."""
    owners: tuple[Any, ...]
    full: Any
    if hasattr(torch.backends.cudnn, "conv"):  # PyTorch 2.9 and later: a setting for each operation
        owners, name, full = (torch.backends.cudnn.conv, torch.backends.cuda.matmul), "fp32_precision", "ieee"
    else:
        owners, name, full = (torch.backends.cudnn, torch.backends.cuda.matmul), "allow_tf32", False
    before = [getattr(owner, name) for owner in owners]
    try:
        for owner in owners:
            setattr(owner, name, full)
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, name, value)
