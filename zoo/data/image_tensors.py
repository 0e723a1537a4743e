"""Convert image arrays to tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError

__all__ = ["check_image", "image_to_tensor"]

STRIP = 2**20
"""The values that are checked at once, at most, but for an image of longer rows."""


def image_to_tensor(array: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Convert an image array (H, W) or (H, W, channels) to a float32 tensor (channels, H, W) on a device.

    Integers are scaled to 0 to 1 by the range of their dtype; floating-point values are not scaled.

    Raises:
        DataError: the shape is another one, the dtype is not numeric, or some values are not finite.
    """
    array = _with_channels(array)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8:  # the usual case: copying bytes to the device takes a quarter of the time of copying floats
        pixels = torch.from_numpy(np.array(array)).to(device).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        scaled = (array.astype(np.float32) - min(limits.min, 0)) / (float(limits.max) - min(limits.min, 0))
    elif np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # a value too large for float32 becomes infinity, which is refused below
            scaled = array.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise DataError(
                "the image has values that are not finite (NaN or infinity); replace them, or declare NaN as the nodata value "
                "of a GeoTIFF"
            )
    else:
        raise DataError(f"its pixels are {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).to(device)


def check_image(array: np.ndarray) -> tuple[int, int, int]:
    """Return (channels, H, W) of an image array that `image_to_tensor` converts, without a copy of the whole image.

    Raises:
        DataError: as `image_to_tensor`.
    """
    array = _with_channels(array)
    height, width, channels = array.shape
    rows = max(1, STRIP // (width * channels))
    for top in range(0, height, rows):
        image_to_tensor(array[top : top + rows])
    return channels, height, width


def _with_channels(array: np.ndarray) -> np.ndarray:
    """Return an image array (H, W, channels).

    Raises:
        DataError: it has another shape.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"an image has the shape (H, W) or (H, W, channels); found {array.shape}")
    return array
