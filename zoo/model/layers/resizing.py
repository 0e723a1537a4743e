"""Resize and pad maps whose height and width may be variable: `torch.SymInt` during an export for all image sizes.

A step that would change nothing is skipped, unless the size is variable. An exported graph is therefore never fixed to one
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["is_open", "is_same", "pad_map", "resize_map"]


def resize_map(x: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Return a map resized to `size`, or the map itself if it has that size.

    During an export, `if x.shape[-2:] != size: x = F.interpolate(...)` is decided by the example image, and the graph is
    silently wrong for other sizes. If the map's size or `size` is variable, this function resizes, unless the two are known
    to be equal for every image.

    Shapes: (N, C, h, w) -> (N, C, H, W), where (H, W) is `size`.

    Args:
        x: the map.
        size: height and width.
        mode: "bilinear", "bicubic" (both without aligned corners), "nearest" or "area".
    """
    if is_same(x.shape[-2:], size):
        return x
    size = (size[0], size[1])
    if mode in ("bilinear", "bicubic"):
        return F.interpolate(x, size=size, mode=mode, align_corners=False)
    return F.interpolate(x, size=size, mode=mode)


def pad_map(x: Tensor, bottom: int | torch.SymInt, right: int | torch.SymInt) -> Tensor:
    """Return a map padded with zeros at the bottom and on the right: (N, C, H, W) -> (N, C, H + bottom, W + right)."""
    if is_same((bottom, right), (0, 0)):
        return x
    return F.pad(x, (0, right, 0, bottom))  # type: ignore[arg-type]


def is_same(lengths: Sequence[int | torch.SymInt], others: Sequence[int | torch.SymInt]) -> bool:
    """Return whether two lists of lengths are equal. Variable lengths count as equal only if they are equal for every image."""
    if is_open(*lengths, *others):
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return all(statically_known_true(length == other) for length, other in zip(lengths, others, strict=True))
    return tuple(lengths) == tuple(others)


def is_open(*lengths: int | torch.SymInt) -> bool:
    """Return whether an export leaves any of these lengths variable. Do not branch on the value of such a length."""
    return torch.SymInt in map(type, lengths)
