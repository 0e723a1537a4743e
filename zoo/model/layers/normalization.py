"""Normalize pixels in 0 to 1 in the way that a model's weights expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.registry.specs import Preprocessing

__all__ = ["Normalization", "PixelScaling"]


class Normalization(nn.Module):
    """Scales images (N, channels, H, W) in 0 to 1 to the weights' value range, subtracts the mean and divides by the std."""

    scale: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        low, high = preprocessing.value_range
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", (high - low) / std, persistent=False)
        self.register_buffer("offset", (low - mean) / std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalized images."""
        return image * self.scale + self.offset


class PixelScaling(nn.Module):
    """Scales images (N, channels, H, W): for each channel, a low pixel value becomes 0 and a high one becomes 1."""

    low: Tensor
    span: Tensor

    def __init__(self, value_range: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        low, high = (torch.tensor(ends, dtype=torch.float64).view(1, -1, 1, 1) for ends in zip(*value_range, strict=True))
        self.register_buffer("low", low.float(), persistent=False)
        self.register_buffer("span", (high - low).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the scaled images."""
        return (image - self.low) / self.span
