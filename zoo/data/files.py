"""Images and masks as files: PNG, JPEG and whatever Pillow reads, TIFF of any depth and number of channels, NumPy arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.errors import DataError

__all__ = ["SUFFIXES", "read_array", "read_mask_array"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TIFF = (".tif", ".tiff")
AS_THEY_ARE = ("L", "RGB", "RGBA", "I;16", "I", "F", "1", "LA")
"""Pillow's modes whose pixels are the image's own; others (palettes, CMYK, YCbCr, Lab) become RGB."""


def read_array(path: Path) -> np.ndarray:
    """Return an image's pixels: (H, W) or (H, W, channels).

    Raises:
        DataError: it is not there, broken, or none.
    """
    if path.suffix.lower() in TIFF and find_spec("tifffile"):
        return _tiff(path)
    if path.suffix.lower() == ".npy":
        return _array(path)
    with _opened(path) as image:
        return np.asarray(image if image.mode in AS_THEY_ARE else image.convert("RGB"))


def read_mask_array(path: Path) -> np.ndarray:
    """Return a mask's pixels: (H, W) of numbers (a palette's are its indexes), or (H, W, 3) of colours.

    Raises:
        DataError: as `read_array`.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy" or (suffix in TIFF and find_spec("tifffile")):
        return _flat(_array(path) if suffix == ".npy" else _tiff(path))
    with _opened(path) as image:
        if image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(image.convert("RGB"))
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        return _flat(np.asarray(image.getchannel(0) if image.mode == "LA" else image))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give an image that Pillow has read whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise DataError(f"{path}: {frames} frames; an image has one")
            image.load()
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: no image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise DataError(f"{path}: larger than Pillow opens unasked: {cause}") from cause
    except (OSError, SyntaxError, EOFError) as cause:
        raise DataError(f"{path}: broken: {cause}") from cause


def _tiff(path: Path) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            array = series.asarray()
            axes = series.axes
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except Exception as cause:  # tifffile raises what its many codecs raise
        raise DataError(f"{path}: broken: {type(cause).__name__}: {cause}") from cause
    if array.ndim == 3 and not axes.endswith(("S", "C")) and axes.endswith("YX"):
        array = np.moveaxis(array, 0, -1)  # bands before rows
    return array


def _array(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise DataError(f"{path}: no NumPy array of numbers: {cause}") from cause
    return found


def _flat(array: np.ndarray) -> np.ndarray:
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
