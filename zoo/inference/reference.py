"""Compute a model's correct output for an image, and the largest accepted error of its exported or deployed form."""

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
"""The accepted error of an exported or deployed model, as a multiple of the original model's own error in TF32 or bfloat16.

The two round their products differently, since folded weights, for example, are rounded to other values. The ratio of their
errors therefore varies between models. With TF32 rounding emulated on the CPU, for four U-Nets x 12 random weights x 3
sizes, the ratio was 0.53 to 1.72 (median 1.0). The largest ratio found so far is 2.2, for a `unet-bilinear` with folded norms
in `tests/inference/deployment/test_tf32.py`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The correct output for an image, and the largest error that is accepted of an exported or deployed model.

    Attributes:
        output: the model's output, computed in float32.
        error: max|a - b| / max|b|, where a is the output of the model as it usually runs, and b is `output`. It is 0 if the
            model usually runs in float32. By default, CUDA devices do not: they round the operands of convolutions to TF32.
        accepted: the largest accepted error: the tolerance, or `ROUNDINGS` times `error` if that is larger.
    """

    output: Tensor
    error: float
    accepted: float


def reference_of(model: nn.Module, image: Tensor, tolerance: float, precision: str = "float32") -> Reference:
    """Return a model's output for an image, computed in float32, and the error accepted of its exported or deployed form.

    Args:
        model: the model, in evaluation mode.
        image: the image, (N, C, H, W).
        tolerance: the error that is always accepted, even if the model's own error is 0.
        precision: the precision that the model usually runs in; "bfloat16" stands for autocast.

    Raises:
        Exception: any error that the model raises.
    """
    given = original_program(model, precision)(image)
    if (image.device.type != "cuda" and precision == "float32") or not isinstance(given, Tensor):
        return Reference(output=given, error=0.0, accepted=tolerance)
    with full_float32():
        output = original_program(model)(image)
    error = relative_error(given, output)
    return Reference(output=output, error=error, accepted=max(tolerance, ROUNDINGS * error))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return max|found - expected| / max|expected| (undivided if that maximum is 0); infinity if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    largest = float(expected.abs().max())
    difference = float((found.to(expected.dtype) - expected).abs().max())
    return difference / largest if largest else difference


def why_not_comparable(output: Tensor) -> str | None:
    """Return an error message if a model's output contains NaN or infinity. Otherwise, return None.

    No other output can be compared with such an output.
    """
    if not (count := int((~output.isfinite()).sum())):
        return None
    return (
        f"The model itself returns NaN or infinity in {count:,} of {output.numel():,} logits, so nothing can be compared with "
        "its output. Its training may have diverged, or the image is not normalized as the model expects."
    )


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Make CUDA devices multiply in full float32, not in TF32.

    The setting applies to the whole process, and is restored at the end.
    """
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
