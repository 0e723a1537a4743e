"""Images and masks as files: PNG, JPEG and whatever Pillow reads, TIFF of any depth and number of channels, NumPy arrays."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, UnidentifiedImageError

from zoo.errors import DataError

__all__ = ["SUFFIXES", "TIFF", "array_of", "may_have_alpha", "read_array", "read_mask_array"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TIFF = frozenset({".tif", ".tiff"})
AS_THEY_ARE = ("L", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F", "1", "LA")
"""Pillow's modes whose pixels are the image's own; others (palettes, CMYK, YCbCr, Lab) become RGB."""

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
"""Of an image that is opened unasked: what Pillow warns of."""
LARGE = 2**30
"""Bytes from which on a compressed TIFF is unpacked into a temporary file, and not into memory."""
ROWS = 256
"""Of a large image, gone through at once."""
GDAL_NODATA = 42113
"""A TIFF's tag, a number as text."""
LOSSLESS = (1, 5, 8)
"""A TIFF's codes for no compression, LZW and Deflate."""

_limit = threading.Lock()
"""Pillow's limit is the process's: who lifts it is alone."""


def read_array(path: Path, *, any_size: bool = False) -> np.ndarray:
    """Return an image's pixels: (H, W) or (H, W, channels); of NumPy's files and plain TIFFs mapped into memory.

    Args:
        path: of the file.
        any_size: read it even if it has more pixels than Pillow opens unasked, 89 million. A small file can claim to be large,
            so that this is for files one trusts.

    Raises:
        DataError: it is not there, broken, too large, or none.
    """
    if path.suffix.lower() == ".npy":
        return _array(path)
    tiff = _tiff(path, any_size=any_size) if path.suffix.lower() in TIFF and find_spec("tifffile") else None
    if tiff and tiff.array is not None and not tiff.is_pillows:
        return _seen(path, tiff.array, tiff)
    with _any_size() if any_size else nullcontext(), _opened(path, tiff) as image:
        array = array_of(image)
    if tiff is None or tiff.is_pillows:
        return array
    return _seen(path, array, tiff) if array.dtype == np.uint16 else _filled(array, tiff)  # the former as they are stored


def array_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of Pillow's image; palettes, CMYK, YCbCr and Lab become RGB."""
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # whose numbers have 16 bits at most
        return np.asarray(image).astype(np.uint16)
    if image.mode in AS_THEY_ARE:
        return np.asarray(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # what Pillow advises for such palettes
    return np.asarray(image.convert("RGB"))


def may_have_alpha(path: Path) -> bool:
    """Whether one channel of two, or of four, of an image that was read is opacity: most formats have no other, TIFFs say."""
    if path.suffix.lower() not in TIFF:
        return path.suffix.lower() != ".npy"
    if not find_spec("tifffile"):
        return False
    import tifffile

    alpha = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
    with tifffile.TiffFile(path) as file:
        page = file.series[0].keyframe
        return page.photometric == tifffile.PHOTOMETRIC.RGB and bool(set(page.extrasamples) & set(alpha))


def read_mask_array(path: Path) -> np.ndarray:
    """Return a mask's pixels: (H, W) of numbers (a palette's are its indexes), or (H, W, 3) of colours.

    Raises:
        DataError: as `read_array`.
    """
    if path.suffix.lower() == ".npy":
        return _flat(_array(path))
    tiff = _tiff(path) if path.suffix.lower() in TIFF and find_spec("tifffile") else None
    if tiff and tiff.array is not None:
        return _flat(tiff.array)
    with _opened(path, tiff) as image:
        if image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(image.convert("RGB"))
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        return _flat(np.asarray(image.getchannel(0) if image.mode == "LA" else image))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tiff:
    """The one image of a TIFF.

    Attributes:
        array: its pixels as they are stored; None where they are compressed in a way that Pillow alone may know.
        bits: of a number.
        num_pages: how many it is made of, smaller copies and the like left out.
        is_dark: whether 0 is white.
        is_pillows: whether its numbers are other colours than red, green and blue, which Pillow brings to these.
        palette: (3, 2**bits) of 16 bits, if its numbers are a palette's indexes.
        nodata: the number that stands where there are no data, if the file names one.
    """

    array: np.ndarray | None
    bits: int
    num_pages: int
    is_dark: bool
    is_pillows: bool
    palette: np.ndarray | None
    nodata: float | None


@contextmanager
def _opened(path: Path, tiff: _Tiff | None = None) -> Iterator[Image.Image]:
    """Give an image that Pillow has read whole; of a TIFF, what is known of it."""
    install = ""
    if tiff is not None and tiff.array is None:
        install = "; it is compressed in a way that needs: pip install imagecodecs"
    elif path.suffix.lower() in TIFF and not find_spec("tifffile"):
        install = "; for TIFFs of more than 8 bits: pip install 'segmentation-zoo[tiff]'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
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
        raise DataError(_told_large(path, str(cause).partition(",")[0])) from cause
    except DataError:
        raise
    except Exception as cause:  # Pillow's many formats raise what they come upon: IndexError, TypeError, RuntimeError
        raise DataError(f"{path}: broken: {str(cause) or type(cause).__name__}{install}") from cause


@contextmanager
def _any_size() -> Iterator[None]:
    with _limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _tiff(path: Path, *, any_size: bool = False) -> _Tiff:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            page = series.keyframe
            images = [each for each in file.series if not (each.keyframe.is_reduced or each.keyframe.is_mask)]
            if len(images) > 1 and series.name != "Baseline":  # of a whole slide, which has a label and an overview as well
                raise DataError(f"{path}: {len(images)} images; a file has one")
            pages = [page for page in series.pages if page is not None]
            end = max(at + size for page in pages for at, size in zip(page.dataoffsets, page.databytecounts, strict=True))
            if end > path.stat().st_size:
                raise DataError(f"{path}: broken: its pixels end at byte {end:,}, and the file has {path.stat().st_size:,}")
            if not any_size and (pixels := page.imagelength * page.imagewidth) > MOST_PIXELS:
                raise DataError(_told_large(path, f"{pixels:,} pixels"))
            others = [tifffile.PHOTOMETRIC.SEPARATED, tifffile.PHOTOMETRIC.CIELAB]
            if page.compression in LOSSLESS:  # JPEG and the like are decoded to red, green and blue
                others.append(tifffile.PHOTOMETRIC.YCBCR)
            nodata = _nodata(page)
            return _Tiff(
                array=_stored(path, series, is_copied=nodata is not None),
                bits=page.bitspersample,
                num_pages=len(pages),
                is_dark=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                is_pillows=page.photometric in others,
                palette=page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None,
                nodata=nodata,
            )
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except Exception as cause:  # tifffile raises what its many codecs raise
        raise DataError(f"{path}: broken: {type(cause).__name__}: {cause}") from cause


def _nodata(page: Any) -> float | None:
    """Return what a page names as no data, in the tag that GDAL writes; None for what its numbers cannot be."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        named = float(tag.value) if tag else None
    except ValueError:
        return None
    if named is None or page.dtype is None or page.dtype.kind not in "iuf":
        return None
    if page.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(page.dtype.type(named))  # as it is stored
    whole = np.iinfo(page.dtype)
    return named if whole.min <= named <= whole.max and named.is_integer() else None


def _stored(path: Path, series: Any, *, is_copied: bool) -> np.ndarray | None:
    """Return the pixels of tifffile's series, bands last; None where another package would have to unpack them.

    A copy, which may be written to, is in memory, or in a temporary file if it is large.
    """
    import tifffile

    array: np.ndarray
    try:
        if not is_copied and series.dataoffset is not None and series.keyframe.is_memmappable:
            array = tifffile.memmap(path, mode="r")
        else:
            array = series.asarray(out="memmap" if series.nbytes > LARGE else None)
    except Exception as cause:
        if "imagecodecs" in str(cause):
            return None
        raise
    are_bands_first = array.ndim == 3 and not series.axes.endswith(("S", "C")) and series.axes.endswith("YX")
    return np.moveaxis(array, 0, -1) if are_bands_first else array


def _seen(path: Path, array: np.ndarray, tiff: _Tiff) -> np.ndarray:
    """Return a TIFF's numbers as they are to be seen: colours for a palette's, the most for white, in their whole range."""
    if tiff.palette is not None:
        colours = (tiff.palette.T // 256).astype(np.uint8)
        if array.dtype.kind not in "ub" or array.max(initial=0) >= len(colours):
            raise DataError(f"{path}: broken: its palette has {len(colours)} colours, and its pixels are others")
        pixels: np.ndarray = colours[array.astype(np.uint16)]
        return pixels
    array = _filled(array, tiff)
    if array.dtype.kind == "u" and tiff.bits < 8 * array.dtype.itemsize:
        array = (array / (2**tiff.bits - 1) * np.iinfo(array.dtype).max).round().astype(array.dtype)
    return np.invert(array) if tiff.is_dark and array.dtype.kind in "ub" else array


def _filled(array: np.ndarray, tiff: _Tiff) -> np.ndarray:
    """Return a TIFF's numbers with 0 for no data: each such number; of unsigned ones, where 255 may be bright, in all bands."""
    if tiff.nodata is None or tiff.palette is not None or tiff.is_dark:
        return array
    array = array if array.flags.writeable else array.copy()
    for top in range(0, len(array), ROWS):
        rows = array[top : top + ROWS]
        missing = np.isnan(rows) if np.isnan(tiff.nodata) else rows == tiff.nodata
        if array.dtype.kind == "u" and array.ndim == 3:
            missing = missing.all(axis=-1)
        rows[missing] = 0
    return array


def _told_large(path: Path, told: str) -> str:
    return (
        f"{path}: larger than is opened unasked: {told}, and {MOST_PIXELS:,} is the limit. If you trust the file, give "
        "any_size=True (--any-size)"
    )


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
