"""Open an image for a model, read it window by window, and convert its channels to those of the model if possible."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.common.format_names import format_count
from zoo.data.formats.files import image_to_array, read_image
from zoo.data.image_tensors import image_to_tensor
from zoo.data.value_ranges import ValueRange, format_range
from zoo.errors import DataError

__all__ = ["ImageLike", "Picture", "open_picture"]

ImageLike: TypeAlias = str | PathLike[str] | np.ndarray | Image.Image | Tensor

NUM_SAMPLED = 10_000
"""The approximate number of pixels of an image that are compared with the value range of the model."""
OUTER_SHARE = 0.005
"""Outliers are left out: this share of the compared pixels with the lowest values, and the same share with the highest."""
SMALL_SHARE = 0.1
"""A channel is unusual if its pixels lie outside its value range, span less than this share of the range, or span more than
1 / `SMALL_SHARE` times the range.

The user gets a note on an image if all of its channels are unusual.
"""

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in a gray level (ITU-R BT.601), as for Pillow's mode "L"."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An image that may be larger than the memory.

    Attributes:
        array: the pixels, (H, W, channels), which may be memory-mapped from a file.
        in_channels: the number of channels of the model's images.
        has_alpha: whether the last channel is an alpha channel, which is left out.
        value_range: for each channel of the model, the pixel values (low, high) that become 0 and 1, as in `SegmentationModel`.
        note: a note on the pixels for the user; "" if there is none.
    """

    array: np.ndarray
    in_channels: int
    has_alpha: bool = False
    value_range: ValueRange | None = None
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        height, width = self.array.shape[:2]
        return height, width

    def window(self, top: int, left: int, height: int, width: int, device: torch.device) -> Tensor:
        """Return the pixels of a window on the device: float32 (in_channels, H, W), scaled to about 0 to 1.

        The part of a window that lies beyond the bottom or right edge of the image is left out.

        Raises:
            DataError: some pixels are not finite.
        """
        array = self.array[top : top + height, left : left + width, : -1 if self.has_alpha else None]
        value_range = self.value_range
        if value_range is not None and array.shape[-1] != self.in_channels:
            if array.shape[-1] == 1:  # repeated before it is scaled, since the range of each channel may differ
                array = np.broadcast_to(array, (*array.shape[:2], self.in_channels))
            else:
                value_range *= array.shape[-1]
        pixels = image_to_tensor(array, device, value_range)
        if len(pixels) == self.in_channels:
            return pixels
        if len(pixels) == 1:
            return pixels.expand(self.in_channels, -1, -1)
        return torch.einsum("chw,c->hw", pixels, torch.tensor(LUMA, device=device))[None]


def open_picture(
    image: ImageLike, in_channels: int, *, value_range: ValueRange | None = None, any_size: bool = False
) -> Picture:
    """Open an image for a model.

    An alpha channel is left out. A gray image is repeated for a model of three channels, and colors are converted to gray for a
    model of one channel. Any other difference in the number of channels is an error.

    Args:
        image: the path of a file, an array (H, W) or (H, W, channels), a Pillow image, or a float tensor (channels, H, W) in 0
            to 1.
        in_channels: the number of channels of the model's images.
        value_range: the value range of the model. It scales all images except tensors.
        any_size: whether to read a file of more pixels than Pillow's default limit.

    Raises:
        DataError: the image cannot be read, or its channels cannot be converted.
    """
    array, may_be_opacity = _array(image, any_size=any_size)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{_describe(image)}: an image must be (H, W) or (H, W, channels); found the shape {array.shape}")
    channels = array.shape[-1]
    has_alpha = may_be_opacity and channels in (2, 4) and channels != in_channels
    colors = channels - has_alpha
    if colors != in_channels and (colors, in_channels) not in ((1, 3), (3, 1)):
        raise DataError(
            f"{_describe(image)} has {format_count(channels, 'channel')}, but the model expects {in_channels}. Use images "
            "with the same channels as the model's training images."
        )
    if value_range is None or isinstance(image, Tensor):
        return Picture(array=array, in_channels=in_channels, has_alpha=has_alpha)
    picture = Picture(array=array, in_channels=in_channels, has_alpha=has_alpha, value_range=value_range)
    problem = _describe_misfit(picture)
    return replace(picture, note=f"{_describe(image)}: {problem}") if problem else picture


def _describe_misfit(picture: Picture) -> str:
    """Return a note if the image seems to be in units other than those of the model's training images; "" otherwise.

    That is so if no channel, scaled with the model's value range, has values of roughly 0 to 1. Constant channels are ignored.
    """
    assert picture.value_range is not None
    height, width = picture.size
    step = max(1, math.isqrt(height * width // NUM_SAMPLED))
    sample = replace(picture, array=picture.array[::step, ::step])
    pixels = np.sort(sample.window(0, 0, *sample.size, torch.device("cpu")).flatten(1).numpy(), axis=1)
    last = pixels.shape[1] - 1
    ends = pixels[:, [round(OUTER_SHARE * last), round((1 - OUTER_SHARE) * last)]]
    ends = ends[ends[:, 0] < ends[:, 1]]  # a constant channel does not show its unit
    spans = ends[:, 1] - ends[:, 0]
    is_usual = (spans >= SMALL_SHARE) & (spans <= 1 / SMALL_SHARE) & (ends[:, 0] < 1) & (ends[:, 1] > 0)
    if not len(ends) or is_usual.any():
        return ""
    return (
        f"the model's value_range, {format_range(picture.value_range)}, scales the pixels ({picture.array.dtype}) to values "
        f"from {ends.min():.3g} to {ends.max():.3g}, but the model was trained on about 0 to 1. Use images in the units of "
        "its training images"
    )


def _array(image: ImageLike, *, any_size: bool) -> tuple[np.ndarray, bool]:
    """Return the pixels, and whether the last channel is an alpha channel.

    The second value matters only for two or four channels.
    """
    if isinstance(image, str | PathLike):
        return read_image(Path(image), any_size=any_size)
    if isinstance(image, Image.Image):
        return image_to_array(image), True
    if isinstance(image, Tensor):
        if image.ndim != 3 or not image.is_floating_point():
            raise DataError(
                f"a tensor must be a float image (channels, H, W) in 0 to 1; found {tuple(image.shape)} of {image.dtype}"
            )
        return image.detach().float().permute(1, 2, 0).cpu().numpy(), False
    return np.asarray(image), False


def _describe(image: ImageLike) -> str:
    return str(image) if isinstance(image, str | PathLike) else type(image).__name__
