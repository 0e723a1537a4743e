"""Trivial baselines, which are not neural networks: predict the most frequent class of each color, or of all pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.data.segmentation_data import SegmentationData

__all__ = ["BASELINES", "color_lookup", "majority"]

LEVELS = {1: 256, 2: 64, 3: 32, 4: 16}
"""The number of levels that each channel is quantized to, for images with 1, 2, 3 and 4 channels.

Only the first four channels of an image are used.
"""


def color_lookup(data: SegmentationData) -> Callable[[Tensor], Tensor]:
    """Return a function that predicts the class of each pixel from its color alone.

    The function takes an image (channels, H, W) in 0 to 1 and returns a mask (H, W). The class of a color is the most frequent
    class of its pixels in the training split. A color that does not occur there gets the most frequent class of all pixels. The
    function ignores neighboring pixels, so a network should score higher.
    """
    levels = LEVELS[min(4, data.in_channels)]
    counts = torch.zeros(levels ** min(4, data.in_channels), len(data.classes), dtype=torch.int64)
    for index in range(len(data.train)):
        image, mask = data.train[index]
        is_counted = mask != data.ignored
        pairs = _quantize_colors(image, levels)[is_counted] * len(data.classes) + mask[is_counted]
        counts += torch.bincount(pairs, minlength=counts.numel()).view_as(counts)
    classes = counts.argmax(dim=1)
    classes[counts.sum(dim=1) == 0] = int(counts.sum(dim=0).argmax())

    def predict(image: Tensor) -> Tensor:
        return classes[_quantize_colors(image, levels)]

    return predict


def majority(data: SegmentationData) -> Callable[[Tensor], Tensor]:
    """Return a function that predicts the most frequent class of the training split for every pixel."""
    counts = torch.zeros(len(data.classes), dtype=torch.int64)
    for index in range(len(data.train)):
        _, mask = data.train[index]
        counts += torch.bincount(mask[mask != data.ignored], minlength=len(counts))
    most_frequent = int(counts.argmax())

    def predict(image: Tensor) -> Tensor:
        return torch.full(image.shape[-2:], most_frequent, dtype=torch.int64)

    return predict


BASELINES: dict[str, Callable[[SegmentationData], Callable[[Tensor], Tensor]]] = {
    "color look-up": color_lookup,
    "majority class": majority,
}


def _quantize_colors(image: Tensor, levels: int) -> Tensor:
    """Return the color of each pixel as one integer: (channels, H, W) -> (H, W)."""
    steps = (image[:4] * levels).long().clamp(0, levels - 1)
    number = torch.zeros_like(steps[0])
    for channel in steps:
        number = number * levels + channel
    return number
