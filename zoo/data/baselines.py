"""What no network is needed for: the commonest class of each colour, and the commonest class of all, as predictions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.data.segmentation_data import SegmentationData

__all__ = ["BASELINES", "colour_lookup", "majority"]

LEVELS = {1: 256, 2: 64, 3: 32, 4: 16}
"""By the number of channels, in how many steps each is counted; of more channels the first four alone."""


def colour_lookup(data: SegmentationData) -> Callable[[Tensor], Tensor]:
    """Return a predictor that gives each pixel the class that its colour has most often in the training part.

    The predictor takes an image (channels, H, W) in 0 to 1 and returns the mask (H, W). A colour that training never
    showed gets the commonest class. It sees no context at all: what a network is worth shows in what it has above this.
    """
    levels = LEVELS[min(4, data.in_channels)]
    counts = torch.zeros(levels ** min(4, data.in_channels), len(data.classes), dtype=torch.int64)
    for index in range(len(data.train)):
        image, mask = data.train[index]
        kept = mask != data.ignored
        pairs = _colours(image, levels)[kept] * len(data.classes) + mask[kept]
        counts += torch.bincount(pairs, minlength=counts.numel()).view_as(counts)
    classes = counts.argmax(dim=1)
    classes[counts.sum(dim=1) == 0] = int(counts.sum(dim=0).argmax())

    def predict(image: Tensor) -> Tensor:
        return classes[_colours(image, levels)]

    return predict


def majority(data: SegmentationData) -> Callable[[Tensor], Tensor]:
    """Return a predictor that gives each pixel the class that is the commonest in the training part."""
    counts = torch.zeros(len(data.classes), dtype=torch.int64)
    for index in range(len(data.train)):
        _, mask = data.train[index]
        counts += torch.bincount(mask[mask != data.ignored], minlength=len(counts))
    commonest = int(counts.argmax())

    def predict(image: Tensor) -> Tensor:
        return torch.full(image.shape[-2:], commonest, dtype=torch.int64)

    return predict


BASELINES: dict[str, Callable[[SegmentationData], Callable[[Tensor], Tensor]]] = {
    "colour look-up": colour_lookup,
    "majority class": majority,
}


def _colours(image: Tensor, levels: int) -> Tensor:
    """Return each pixel's colour as one number: (channels, H, W) -> (H, W)."""
    steps = (image[:4] * levels).long().clamp(0, levels - 1)
    number = torch.zeros_like(steps[0])
    for channel in steps:
        number = number * levels + channel
    return number
