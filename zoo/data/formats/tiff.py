"""Read TIFFs of any depth and number of channels, with the numbers as they are stored or as they are displayed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.formats.compression import Loss, find_loss
from zoo.data.formats.pillow_limits import MOST_PIXELS, filter_warnings, size_error
from zoo.errors import DataError

__all__ = ["ORIENTATION", "Tiff", "gray_colors", "open_raster", "read_tiff"]

LARGE = 2**30
"""Above this number of bytes, a compressed TIFF is decoded into a temporary file instead of memory."""
ROWS = 256
"""The number of rows that are processed at once, which limits the memory."""
GDAL_NODATA = 42113
"""The TIFF tag of the nodata value, a number as text."""
ORIENTATION = 274
"""The tag of TIFF and EXIF that defines how to rotate or mirror an image."""
LOSSLESS = (1, 5, 8)
"""TIFF codes of compressions: none, LZW and Deflate."""
WHOLE_BITS = (1, 8, 16, 32, 64)
"""The bits per number that tifffile decodes without imagecodecs."""
JPEG = (6, 7, 33007, 34892)
ZSTD = (34926, 50000)
EXACT = frozenset({*LOSSLESS, *ZSTD, 2, 3, 4, 32771, 32773, 32809, 32946, 34661, 34925})
"""TIFF codes of all compressions that are always lossless, including fax, PackBits, JBIG and LZMA."""
LERC = 34887


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiff:
    """The image of a TIFF that contains only one image.

    Attributes:
        path: the path of the file.
        array: the pixels as they are stored; None if only Pillow may be able to decode their compression.
        dtype: the dtype of the numbers.
        bits: the bits per number.
        samples: how many numbers a pixel has, one for each channel.
        num_pages: the number of pages of the image. Smaller copies and transparency masks are not counted.
        is_white_zero: whether the number 0 is white.
        needs_pillow: whether the file has a color space, such as CMYK, that Pillow must convert to RGB.
        loss: the lossy compression of the file; None if it is lossless.
        has_alpha: whether one of the channels is an alpha channel.
        orientation: the value of the orientation tag, 1 to 8.
        palette: (2**bits, 3), uint8, if the numbers are indexes of a palette.
        nodata: the number that marks missing data, if the file declares one.
    """

    path: Path
    array: np.ndarray | None
    dtype: np.dtype[Any]
    bits: int
    samples: int
    num_pages: int
    is_white_zero: bool
    needs_pillow: bool
    loss: Loss | None
    has_alpha: bool
    orientation: int
    palette: np.ndarray | None
    nodata: float | None

    def to_display(self, array: np.ndarray) -> np.ndarray:
        """Convert stored pixels for display: palette indexes to colors, other numbers to the full range of their dtype."""
        if self.palette is not None:
            if array.dtype.kind not in "ub" or array.max(initial=0) >= len(self.palette):
                raise DataError(f"{self.path} is broken: its pixels exceed its palette of {len(self.palette)} colors")
            pixels: np.ndarray = self.palette[array.astype(np.uint16)]
            return pixels
        array = self.fill_nodata(array)
        if array.dtype.kind == "u" and self.bits < 8 * array.dtype.itemsize:
            array = (array / (2**self.bits - 1) * np.iinfo(array.dtype).max).round().astype(array.dtype)
        return np.invert(array) if self.is_white_zero and array.dtype.kind in "ub" else array

    def fill_nodata(self, array: np.ndarray) -> np.ndarray:
        """Return the pixels with 0 in place of missing data.

        In an image of unsigned integers, a bright pixel may have the nodata value too, such as 255. In such an image, a pixel
        is missing only if all its bands have the nodata value.
        """
        if self.nodata is None or self.palette is not None or self.is_white_zero:
            return array
        array = array if array.flags.writeable else array.copy()
        for top in range(0, len(array), ROWS):
            rows = array[top : top + ROWS]
            missing = np.isnan(rows) if np.isnan(self.nodata) else rows == self.nodata
            if array.dtype.kind == "u" and array.ndim == 3:
                missing = missing.all(axis=-1)
            rows[missing] = 0
        return array

    @property
    def display_colors(self) -> np.ndarray | None:
        """The color that each number is displayed in, (2**bits, 3), uint8; None if number n is displayed as gray level n."""
        if self.palette is not None:
            return self.palette
        if self.samples > 1 or self.dtype.kind not in "ub" or self.bits > 8 or (self.bits == 8 and not self.is_white_zero):
            return None
        return gray_colors(self.bits)[::-1] if self.is_white_zero else gray_colors(self.bits)


def gray_colors(bits: int) -> np.ndarray:
    """Return the gray of each number of `bits` bits, (2**bits, 3), uint8: from black for 0 to white for the highest."""
    return np.linspace(0, 255, 2**bits).round().astype(np.uint8)[:, None].repeat(3, axis=1)


def read_tiff(path: Path, *, any_size: bool) -> Tiff:
    """Use tifffile to read a TIFF that contains only one image.

    Raises:
        DataError: the file does not exist, is broken, too large, or has several images.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            page = series.keyframe
            images = [each for each in file.series if not (each.keyframe.is_reduced or each.keyframe.is_mask)]
            if len(images) > 1 and series.name != "Baseline":  # a whole-slide image also has a label and an overview
                raise DataError(f"{path}: expected one image; found {len(images)}")
            pages = [page for page in series.pages if page is not None]
            segments = [segment for page in pages for segment in zip(page.dataoffsets, page.databytecounts, strict=True)]
            end = max(offset + length for offset, length in segments)
            if end > path.stat().st_size:
                raise DataError(
                    f"{path} is broken: its pixels end at byte {end:,}, but the file ends at {path.stat().st_size:,}"
                )
            if not any_size and (pixels := page.imagelength * page.imagewidth) > MOST_PIXELS:
                raise size_error(path, f"{pixels:,} pixels")
            pillow_spaces = [tifffile.PHOTOMETRIC.SEPARATED, tifffile.PHOTOMETRIC.CIELAB]
            if page.compression in LOSSLESS:  # in other compressions, such as JPEG, the decoder converts YCbCr to RGB
                pillow_spaces.append(tifffile.PHOTOMETRIC.YCBCR)
            alpha = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
            needs_pillow = page.photometric in pillow_spaces
            nodata = _find_nodata(page)
            return Tiff(
                path=path,
                array=_read_pixels(path, series, copy=nodata is not None, needs_pillow=needs_pillow),
                dtype=np.dtype(page.dtype),
                bits=page.bitspersample,
                samples=page.samplesperpixel,
                num_pages=len(pages),
                is_white_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                needs_pillow=needs_pillow,
                loss=_find_loss(path, page),
                has_alpha=page.photometric == tifffile.PHOTOMETRIC.RGB and not alpha.isdisjoint(page.extrasamples),
                orientation=1 if page.is_geotiff or ORIENTATION not in page.tags else int(page.tags[ORIENTATION].value),
                palette=_palette(page),
                nodata=nodata,
            )
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except Exception as cause:  # on broken files, the codecs of tifffile can raise anything
        raise DataError(f"{path} is broken: {type(cause).__name__}: {cause}") from cause


def _palette(page: Any) -> np.ndarray | None:
    """Return the colors of the palette of a page, (2**bits, 3), uint8; None if it has no palette.

    The colors of a TIFF palette have 16 bits, but some programs write 8-bit colors without scaling them.
    """
    from tifffile import PHOTOMETRIC

    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    scale = 1 if page.colormap.max(initial=0) < 256 else 256
    colors: np.ndarray = (page.colormap // scale).T.astype(np.uint8)
    return colors


def _find_loss(path: Path, page: Any) -> Loss | None:
    """Return the lossy compression of a page; None if it is lossless.

    If the file does not declare whether its compression is lossy, `is_certain` is False.
    """
    if page.compression in EXACT:
        return None
    name = getattr(page.compression, "name", str(page.compression))
    if page.compression in JPEG:
        return Loss(name="JPEG", is_certain=True)
    file = page.parent.filehandle
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    offset, length = next((segment for segment in segments if segment[1]), (0, 0))  # the first segment that is not empty
    file.seek(offset)
    content = file.read(length)
    if content[:4] == b"RIFF" or find_loss(content):
        return find_loss(content)
    if not find_spec("rasterio"):
        return Loss(name=name, is_certain=False)
    with open_raster(path) as raster:
        facts = raster.tags(ns="IMAGE_STRUCTURE")
    if page.compression == LERC:
        error = facts.get("MAX_Z_ERROR")
        return Loss(name=f"LERC with an error of up to {error}", is_certain=True) if error else None
    reversibility = facts.get("COMPRESSION_REVERSIBILITY", "")
    return None if reversibility == "LOSSLESS" else Loss(name=name, is_certain=reversibility == "LOSSY")


def _find_nodata(page: Any) -> float | None:
    """Return the nodata value of a page, from the tag that GDAL writes; None if the dtype of the page cannot represent it."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        nodata = float(tag.value) if tag else None
    except ValueError:
        return None
    if nodata is None or page.dtype is None or page.dtype.kind not in "iuf":
        return None
    if page.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(page.dtype.type(nodata))  # rounded to the precision of the pixels
    limits = np.iinfo(page.dtype)
    return nodata if limits.min <= nodata <= limits.max and nodata.is_integer() else None


def _read_pixels(path: Path, series: Any, *, copy: bool, needs_pillow: bool) -> np.ndarray | None:
    """Return the pixels of a tifffile series, with the bands last; None if Pillow has to decode them.

    With `copy`, the array is writable, and is in memory or, if it is large, in a temporary file. Without `copy`, the array may
    also be memory-mapped from the file itself.
    """
    import tifffile

    array: np.ndarray
    page = series.keyframe
    if not _can_tifffile_decode(page):
        can_rasterio_decode = len(series.pages) == 1 and not needs_pillow and page.compression not in JPEG
        return _read_with_rasterio(path, series.nbytes) if can_rasterio_decode and find_spec("rasterio") else None
    if not copy and series.dataoffset is not None and page.is_memmappable:
        array = tifffile.memmap(path, mode="r")
    else:
        array = series.asarray(out="memmap" if series.nbytes > LARGE else None)
    are_bands_first = array.ndim == 3 and not series.axes.endswith(("S", "C")) and series.axes.endswith("YX")
    return np.moveaxis(array, 0, -1) if are_bands_first else array


def _can_tifffile_decode(page: Any) -> bool:
    """Return whether tifffile decodes the compression of a page, by itself or with the package imagecodecs."""
    from tifffile import TIFF

    if page.compression not in TIFF.DECOMPRESSORS or page.predictor not in TIFF.UNPREDICTORS:
        return False
    if find_spec("imagecodecs"):
        return True
    has_codec = page.compression not in ZSTD or sys.version_info >= (3, 14)  # Python 3.14 can decode Zstandard
    return has_codec and page.bitspersample in WHOLE_BITS


def _read_with_rasterio(path: Path, num_bytes: int) -> np.ndarray:
    """Return all bands of a file, (H, W) or (H, W, bands), as rasterio reads them."""
    from rasterio.errors import RasterioError

    try:
        with open_raster(path) as file:
            shape, dtype = (file.count, file.height, file.width), file.dtypes[0]
            if num_bytes > LARGE:
                with tempfile.TemporaryFile() as storage:
                    array: np.ndarray = np.memmap(storage, dtype=dtype, mode="w+", shape=shape)
            else:
                array = np.empty(shape, dtype=dtype)
            file.read(out=array)
    except RasterioError as cause:
        raise DataError(f"{path} is broken, or its compression requires imagecodecs: {cause.__cause__ or cause}") from cause
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a file with rasterio, and suppress its warning about files that are not georeferenced."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with filter_warnings("ignore", NotGeoreferencedWarning):
        file = rasterio.open(path)
    with file:
        yield file
