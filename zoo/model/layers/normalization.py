"""Normalize pixels in 0 to 1 as a model's weights expect them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.registry.specs import Preprocessing

__all__ = ["Normalization"]


class Normalization(nn.Module):
    """Scales images (N, channels, H, W) from 0 to 1 to a value range, subtracts the mean and divides by the std."""

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
