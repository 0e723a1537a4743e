"""Images and masks as files: PNG, JPEG and whatever Pillow reads, TIFF of any depth and number of channels, NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, UnidentifiedImageError

from zoo.data.limits import any_number_of_pixels, told_large, warnings_as
from zoo.data.tiff import Tiff, read_tiff
from zoo.errors import DataError

__all__ = ["SUFFIXES", "TIFF", "array_of", "read_array", "read_image", "read_mask_array"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TIFF = frozenset({".tif", ".tiff"})
AS_THEY_ARE = ("L", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F", "1", "LA")
"""Pillow's modes whose pixels are the image's own; others (palettes, CMYK, YCbCr, Lab) become RGB."""


def read_array(path: Path, *, any_size: bool = False) -> np.ndarray:
    """Return an image's pixels: (H, W) or (H, W, channels); of NumPy's files and plain TIFFs mapped into memory.

    Args:
        path: of the file.
        any_size: read it even if it has more pixels than Pillow opens unasked, 89 million. A small file can claim to be large,
            so that this is for files one trusts.

    Raises:
        DataError: it is not there, broken, too large, or none.
    """
    return read_image(path, any_size=any_size)[0]


def read_image(path: Path, *, any_size: bool = False) -> tuple[np.ndarray, bool]:
    """Return an image's pixels, and whether one channel of two, or of four, is opacity: in most formats it is; TIFFs say.

    Arguments and errors as for `read_array`.
    """
    if path.suffix.lower() == ".npy":
        return _array(path), False
    tiff = _tiff_of(path, any_size=any_size)
    if tiff and tiff.array is not None and not tiff.is_pillows:
        return tiff.shown(tiff.array), tiff.has_alpha
    with any_number_of_pixels() if any_size else nullcontext(), _opened(path, tiff) as image:
        array = array_of(image)
    if tiff is None:
        return array, path.suffix.lower() not in TIFF
    if not tiff.is_pillows:  # of 16 bits they are as they are stored
        array = tiff.shown(array) if array.dtype == np.uint16 else tiff.filled(array)
    return array, tiff.has_alpha


def array_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of Pillow's image; palettes, CMYK, YCbCr and Lab become RGB."""
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # whose numbers have 16 bits at most
        return np.asarray(image).astype(np.uint16)
    if image.mode in AS_THEY_ARE:
        return np.asarray(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # what Pillow advises for such palettes
    return np.asarray(image.convert("RGB"))


def read_mask_array(path: Path) -> np.ndarray:
    """Return a mask's pixels: (H, W) of numbers (a palette's are its indexes), or (H, W, 3) of colours.

    Raises:
        DataError: as `read_array`.
    """
    if path.suffix.lower() == ".npy":
        return _flat(_array(path))
    tiff = _tiff_of(path)
    if tiff and tiff.array is not None:
        return _flat(tiff.array)
    with _opened(path, tiff) as image:
        if image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(image.convert("RGB"))
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        return _flat(np.asarray(image.getchannel(0) if image.mode == "LA" else image))


def _tiff_of(path: Path, *, any_size: bool = False) -> Tiff | None:
    is_known = path.suffix.lower() in TIFF and find_spec("tifffile")
    return read_tiff(path, any_size=any_size) if is_known else None


@contextmanager
def _opened(path: Path, tiff: Tiff | None) -> Iterator[Image.Image]:
    """Give an image that Pillow has read whole; of a TIFF, what is known of it."""
    install = ""
    if tiff is not None and tiff.array is None:
        install = "; it is compressed in a way that needs: pip install imagecodecs"
    elif path.suffix.lower() in TIFF and not find_spec("tifffile"):
        install = "; for TIFFs of more than 8 bits: pip install 'segmentation-zoo[tiff]'"
    try:
        with warnings_as("error", Image.DecompressionBombWarning):
            image = Image.open(path)
        with image:
            frames = getattr(image, "n_frames", 1)
            has_small_copies = image.format == "MPO" or (tiff is not None and tiff.num_pages == 1)
            if frames > 1 and not has_small_copies:
                raise DataError(f"{path}: {frames} frames; an image has one")
            image.load()
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not an image") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: no image that Pillow can read{install}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise DataError(told_large(path, str(cause).partition(",")[0])) from cause
    except DataError:
        raise
    except Exception as cause:  # Pillow's many formats raise what they come upon: IndexError, TypeError, RuntimeError
        raise DataError(f"{path}: broken: {str(cause) or type(cause).__name__}{install}") from cause


def _array(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except Exception as cause:  # a header that is no Python literal, sizes that no memory has: NumPy raises what these do
        raise DataError(f"{path}: no NumPy array of numbers, as numpy.save writes one: {cause}") from cause
    return found


def _flat(array: np.ndarray) -> np.ndarray:
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
