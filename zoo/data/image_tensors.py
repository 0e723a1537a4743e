"""Convert image arrays to tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.common.format_names import format_count
from zoo.data.value_ranges import ValueRange, dtype_range
from zoo.errors import DataError

__all__ = ["check_image", "image_to_tensor"]

STRIP = 2**20
"""The largest number of values that are checked at once, unless a single row of the image has more."""


def image_to_tensor(array: np.ndarray, device: torch.device | None = None, value_range: ValueRange | None = None) -> Tensor:
    """Convert an image array (H, W) or (H, W, channels) to a float32 tensor (channels, H, W) on a device.

    Args:
        array: the pixels.
        device: the device of the tensor.
        value_range: for each channel, the pixel values (low, high) that become 0 and 1. The scaling is linear, and values
            outside the range are not clipped. None scales integers by the range of their dtype, and does not scale floats.

    Raises:
        DataError: the array has another shape, its dtype is not numeric, some values are not finite, or the value range and the
            image differ in their number of channels.
    """
    array = _with_channels(array)
    if value_range is not None and len(value_range) != array.shape[-1]:
        raise DataError(f"the value range has {format_count(len(value_range), 'channel')}, but the image has {array.shape[-1]}")
    is_scaled_by_dtype = value_range is None or set(value_range) == {dtype_range(array.dtype)}
    if is_scaled_by_dtype and array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if is_scaled_by_dtype and array.dtype == np.uint8:
        # The usual case: copying bytes to the device takes a quarter of the time of copying floats.
        pixels = torch.from_numpy(np.array(array)).to(device).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    if array.dtype.kind not in "biuf":
        raise DataError(f"its pixels are {array.dtype}, not numbers")
    if value_range is not None and not is_scaled_by_dtype:
        scaled = _scale(array, value_range)
    elif np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        scaled = (array.astype(np.float32) - min(limits.min, 0)) / (float(limits.max) - min(limits.min, 0))
    else:
        with np.errstate(over="ignore"):  # a value too large for float32 becomes infinity, which is refused below
            scaled = array.astype(np.float32)
    if not np.isfinite(scaled).all():
        raise DataError(
            "the image has values that are not finite (NaN or infinity); replace them, or declare NaN as the nodata value "
            "of a GeoTIFF"
        )
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).to(device)


def check_image(array: np.ndarray) -> tuple[int, int, int]:
    """Return (channels, H, W) of an image array, after checking that `image_to_tensor` accepts it.

    The check converts one strip of the image at a time, so that it needs no copy of the whole image.

    Raises:
        DataError: for the reasons that `image_to_tensor` lists.
    """
    array = _with_channels(array)
    height, width, channels = array.shape
    rows = max(1, STRIP // (width * channels))
    for top in range(0, height, rows):
        image_to_tensor(array[top : top + rows])
    return channels, height, width


def _with_channels(array: np.ndarray) -> np.ndarray:
    """Return an image array as (H, W, channels).

    Raises:
        DataError: the array is neither (H, W) nor (H, W, channels), or has no pixels.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"an image must have the shape (H, W) or (H, W, channels); found {array.shape}")
    return array


def _scale(array: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Return pixels (H, W, channels), scaled linearly, in float32."""
    exact = np.float32 if array.dtype.itemsize <= 2 else np.float64  # float32 cannot represent all values of wider dtypes
    low, high = np.array(value_range, dtype=exact).T
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = ((array.astype(exact) - low) / (high - low)).astype(np.float32)
    return scaled
