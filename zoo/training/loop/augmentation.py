"""Crop, flip and scale a training sample, and change its contrast and brightness.

This works for any number of channels and any value range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["Augmentation"]

SCALES = (0.75, 1.5)
"""The smallest and the largest factor by which an image is scaled."""
CONTRAST = 0.2
"""The largest relative change of contrast. Contrast is the distance of a channel's values from their mean."""
BRIGHTNESS = 0.3
"""The largest shift of a channel's values, in standard deviations. In photographs, it is about a fifth of the mean value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Makes a crop of a fixed size from a sample.

    The crop is cut first, so that the cost of all later steps does not depend on the size of the image. A crop is scaled with
    probability 1/2. With probability 1/2, its contrast and brightness are changed, relative to the mean and the standard
    deviation of each channel in the crop. Values are not clamped, so the changes are comparable for all value ranges, such as
    those of photographs, reflectance or temperatures in kelvin.

    Attributes:
        size: (H, W) of the crops.
        ignored: the mask value of pixels outside the image, for a crop that is larger than the image. In the cropped image,
            these pixels get the mean of each channel.
        is_on: whether crops are flipped, scaled, and changed in contrast and brightness. If False, they are only cut.
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
        spans = [_find_span(have, want, scale, uniform(0, 1)) for have, want in zip(mask.shape, self.size, strict=True)]
        (top, height, new_height), (left, width, new_width) = spans
        image = image[:, top : top + height, left : left + width]
        mask = mask[top : top + height, left : left + width]
        if (new_height, new_width) != (height, width):
            image = F.interpolate(image[None], (new_height, new_width), mode="bilinear", antialias=True)[0]
            mask = mask[_nearest_indexes(height, new_height)][:, _nearest_indexes(width, new_width)]
        if is_varied:
            image = _vary(image, 1 + uniform(-CONTRAST, CONTRAST), uniform(-BRIGHTNESS, BRIGHTNESS))
        if is_flipped:
            image, mask = image.flip(-1), mask.flip(-1)
        if mask.shape != self.size:
            above, before = (int(uniform(0, want - have + 1)) for want, have in zip(self.size, mask.shape, strict=True))
            window = np.s_[..., above : above + mask.shape[0], before : before + mask.shape[1]]
            image = _paste(image, window, image.mean(dim=(1, 2), keepdim=True).expand(-1, *self.size))
            mask = _paste(mask, window, mask.new_full(self.size, self.ignored))
        return image.contiguous(), mask.contiguous()


def _find_span(have: int, want: int, scale: float, position: float) -> tuple[int, int, int]:
    """Return the first pixel of a crop along an axis, the crop's length, and the crop's length after scaling.

    Args:
        have: the length of the image in pixels.
        want: the length of the crop in pixels.
        scale: the scale of the crop relative to the image.
        position: the position of the crop in the image, from 0 (the start) to 1 (the end).
    """
    needed = max(1, round(want / scale))
    if needed > have:
        return 0, have, min(want, max(1, round(have * scale)))
    return min(int(position * (have - needed + 1)), have - needed), needed, want


def _paste(part: Tensor, window: Any, background: Tensor) -> Tensor:
    """Return a copy of the background in which `part` fills the window."""
    whole = background.clone()
    whole[window] = part
    return whole


def _nearest_indexes(have: int, want: int) -> Tensor:
    """Return, for each pixel of the scaled image along an axis, the index of the original pixel that contains its center."""
    return ((torch.arange(want, dtype=torch.float64) + 0.5) * (have / want)).long().clamp(max=have - 1)


def _vary(image: Tensor, contrast: float, brightness: float) -> Tensor:
    """Multiply the contrast of an image by `contrast`, and add `brightness` times its standard deviation to each channel."""
    mean = image.mean(dim=(1, 2), keepdim=True)
    deviation = image.std(dim=(1, 2), keepdim=True, correction=0)
    return mean + contrast * (image - mean) + brightness * deviation
