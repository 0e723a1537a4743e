"""Crop a sample for training, and flip, scale and vary it: of any number of channels and in any range of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["Augmentation"]

SCALES = (0.75, 1.5)
"""Of an image's own size."""
CONTRAST = 0.2
"""By how much the distance of a channel from its mean changes, at most."""
BRIGHTNESS = 0.3
"""By how much a channel is shifted at most, in its standard deviations: of photographs about a fifth of the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Makes a crop of one size from a sample.

    The crop is cut first, so that what follows costs what the crop costs, however large the image is. Half of the crops are
    scaled, relative to the image. Half vary in brightness and contrast, relative to each channel's mean and deviation in the
    crop: nothing is clamped, and kelvin, reflectance and photographs vary alike.

    Attributes:
        size: (H, W) of the crops.
        ignored: the mask's value where the crop is larger than the image; the image has the mean of each channel there.
        is_on: whether a crop is flipped, scaled and varied; otherwise it is only cut.
    """

    size: tuple[int, int]
    ignored: int
    is_on: bool

    def __call__(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return a crop of a sample: (channels, H, W) and (H, W) -> (channels, *size) and (*size)."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        is_scaled, is_varied, is_flipped = (self.is_on and uniform(0, 1) < 0.5 for _ in range(3))
        scale = uniform(*SCALES) if is_scaled else 1.0
        spans = [_span(have, want, scale, uniform(0, 1)) for have, want in zip(mask.shape, self.size, strict=True)]
        (top, height, new_height), (left, width, new_width) = spans
        image = image[:, top : top + height, left : left + width]
        mask = mask[top : top + height, left : left + width]
        if (new_height, new_width) != (height, width):
            image = F.interpolate(image[None], (new_height, new_width), mode="bilinear", antialias=True)[0]
            mask = mask[_nearest(height, new_height)][:, _nearest(width, new_width)]
        if is_varied:
            image = _varied(image, 1 + uniform(-CONTRAST, CONTRAST), uniform(-BRIGHTNESS, BRIGHTNESS))
        if is_flipped:
            image, mask = image.flip(-1), mask.flip(-1)
        if mask.shape != self.size:
            above, before = (int(uniform(0, want - have + 1)) for want, have in zip(self.size, mask.shape, strict=True))
            place = np.s_[..., above : above + mask.shape[0], before : before + mask.shape[1]]
            image = _placed(image, place, image.mean(dim=(1, 2), keepdim=True).expand(-1, *self.size))
            mask = _placed(mask, place, mask.new_full(self.size, self.ignored))
        return image.contiguous(), mask.contiguous()


def _span(have: int, want: int, scale: float, place: float) -> tuple[int, int, int]:
    """Return where along an axis the crop is cut: its first pixel, how many, and how many these become.

    Args:
        have: pixels of the image.
        want: pixels of the crop.
        scale: of the crop, relative to the image.
        place: of the crop in the image, in 0 to 1.
    """
    needed = max(1, round(want / scale))
    if needed > have:
        return 0, have, min(want, max(1, round(have * scale)))
    return min(int(place * (have - needed + 1)), have - needed), needed, want


def _placed(part: Tensor, place: Any, ground: Tensor) -> Tensor:
    """Return a tensor with a part of it replaced."""
    whole = ground.clone()
    whole[place] = part
    return whole


def _nearest(have: int, want: int) -> Tensor:
    """Return for each of the new pixels the old one that its center lies in."""
    return ((torch.arange(want, dtype=torch.float64) + 0.5) * (have / want)).long().clamp(max=have - 1)


def _varied(image: Tensor, contrast: float, brightness: float) -> Tensor:
    """Return an image whose channels are spread and shifted, by the same shares of their own deviation."""
    mean = image.mean(dim=(1, 2), keepdim=True)
    deviation = image.std(dim=(1, 2), keepdim=True, correction=0)
    return mean + contrast * (image - mean) + brightness * deviation
