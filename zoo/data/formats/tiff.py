"""TIFFs of any depth and number of channels: their numbers as they are stored, and as they are to be seen."""

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

from zoo.data.formats.compression import Loss, loss_in
from zoo.data.formats.pillow_limits import MOST_PIXELS, told_large, warnings_as
from zoo.errors import DataError

__all__ = ["ORIENTATION", "Tiff", "grays", "open_raster", "read_tiff"]

LARGE = 2**30
"""Bytes from which on a compressed TIFF is unpacked into a temporary file, and not into memory."""
ROWS = 256
"""Of a large image, gone through at once."""
GDAL_NODATA = 42113
"""A TIFF's tag, a number as text."""
ORIENTATION = 274
"""The tag, of TIFF and EXIF, that says how an image is to be turned."""
LOSSLESS = (1, 5, 8)
"""A TIFF's codes for no compression, LZW and Deflate."""
WHOLE_BITS = (1, 8, 16, 32, 64)
"""Of a number, what tifffile unpacks by itself."""
JPEG = (6, 7, 33007, 34892)
ZSTD = (34926, 50000)
EXACT = frozenset({*LOSSLESS, *ZSTD, 2, 3, 4, 32771, 32773, 32809, 32946, 34661, 34925})
"""All codes for compression that never changes a number: fax, PackBits, JBIG and LZMA among them."""
LERC = 34887


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiff:
    """The one image of a TIFF.

    Attributes:
        path: of the file.
        array: its pixels as they are stored; None where they are compressed in a way that Pillow alone may know.
        dtype: of its numbers.
        bits: of a number.
        samples: numbers of a pixel.
        num_pages: how many it is made of, smaller copies and the like left out.
        is_dark: whether 0 is white.
        is_pillows: whether its numbers are other colours than red, green and blue, which Pillow brings to these.
        loss: what compression did, or may have done, to its numbers; None for nothing.
        has_alpha: whether one of its channels is opacity.
        orientation: how it is to be turned, as `upright` takes it.
        palette: (2**bits, 3), uint8, if its numbers are a palette's indexes.
        nodata: the number that stands where there are no data, if the file names one.
    """

    path: Path
    array: np.ndarray | None
    dtype: np.dtype[Any]
    bits: int
    samples: int
    num_pages: int
    is_dark: bool
    is_pillows: bool
    loss: Loss | None
    has_alpha: bool
    orientation: int
    palette: np.ndarray | None
    nodata: float | None

    def shown(self, array: np.ndarray) -> np.ndarray:
        """Return numbers as they are to be seen: colours for a palette's, the most for white, in their whole range."""
        if self.palette is not None:
            if array.dtype.kind not in "ub" or array.max(initial=0) >= len(self.palette):
                raise DataError(f"{self.path}: broken: its palette has {len(self.palette)} colours, and its pixels are others")
            pixels: np.ndarray = self.palette[array.astype(np.uint16)]
            return pixels
        array = self.filled(array)
        if array.dtype.kind == "u" and self.bits < 8 * array.dtype.itemsize:
            array = (array / (2**self.bits - 1) * np.iinfo(array.dtype).max).round().astype(array.dtype)
        return np.invert(array) if self.is_dark and array.dtype.kind in "ub" else array

    def filled(self, array: np.ndarray) -> np.ndarray:
        """Return numbers with 0 for no data: each such number; of unsigned ones, where 255 may be bright, in all bands."""
        if self.nodata is None or self.palette is not None or self.is_dark:
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
    def colors_shown(self) -> np.ndarray | None:
        """The color in which each number is shown, (2**bits, 3), uint8; None where it is the number itself, as a gray."""
        if self.palette is not None:
            return self.palette
        if self.samples > 1 or self.dtype.kind not in "ub" or self.bits > 8 or (self.bits == 8 and not self.is_dark):
            return None
        return grays(self.bits)[::-1] if self.is_dark else grays(self.bits)


def grays(bits: int) -> np.ndarray:
    """Return what numbers of so many bits are shown as, (2**bits, 3), uint8: black for 0, and white for the most."""
    return np.linspace(0, 255, 2**bits).round().astype(np.uint8)[:, None].repeat(3, axis=1)


def read_tiff(path: Path, *, any_size: bool) -> Tiff:
    """Return a file's one image, read by the package tifffile.

    Raises:
        DataError: it is not there, broken, too large, or of several images.
    """
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
                raise DataError(told_large(path, f"{pixels:,} pixels"))
            others = [tifffile.PHOTOMETRIC.SEPARATED, tifffile.PHOTOMETRIC.CIELAB]
            if page.compression in LOSSLESS:  # JPEG and the like are decoded to red, green and blue
                others.append(tifffile.PHOTOMETRIC.YCBCR)
            alpha = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
            nodata = _nodata(page)
            return Tiff(
                path=path,
                array=_stored(path, series, is_copied=nodata is not None, is_pillows=page.photometric in others),
                dtype=np.dtype(page.dtype),
                bits=page.bitspersample,
                samples=page.samplesperpixel,
                num_pages=len(pages),
                is_dark=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
                is_pillows=page.photometric in others,
                loss=_loss(path, page),
                has_alpha=page.photometric == tifffile.PHOTOMETRIC.RGB and not alpha.isdisjoint(page.extrasamples),
                orientation=1 if page.is_geotiff or ORIENTATION not in page.tags else int(page.tags[ORIENTATION].value),
                palette=_palette(page),
                nodata=nodata,
            )
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except Exception as cause:  # tifffile raises what its many codecs raise
        raise DataError(f"{path}: broken: {type(cause).__name__}: {cause}") from cause


def _palette(page: Any) -> np.ndarray | None:
    """Return the colors of a page's palette, (2**bits, 3) of 8 bits; None if it has none.

    A palette has numbers of 16 bits; some programs write those of 8 bits as they are.
    """
    from tifffile import PHOTOMETRIC

    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    scale = 1 if page.colormap.max(initial=0) < 256 else 256
    colors: np.ndarray = (page.colormap // scale).T.astype(np.uint8)
    return colors


def _loss(path: Path, page: Any) -> Loss | None:
    """Return what the compression of a page lost; a codec that says nothing of it may have lost something."""
    if page.compression in EXACT:
        return None
    name = getattr(page.compression, "name", str(page.compression))
    if page.compression in JPEG:
        return Loss(name="JPEG", is_certain=True)
    file = page.parent.filehandle
    at, size = next((each for each in zip(page.dataoffsets, page.databytecounts, strict=True) if each[1]), (0, 0))
    file.seek(at)
    content = file.read(size)
    if content[:4] == b"RIFF" or loss_in(content):
        return loss_in(content)
    if not find_spec("rasterio"):
        return Loss(name=name, is_certain=False)
    with open_raster(path) as raster:
        facts = raster.tags(ns="IMAGE_STRUCTURE")
    if page.compression == LERC:
        return (
            Loss(name=f"LERC with an error of up to {error}", is_certain=True) if (error := facts.get("MAX_Z_ERROR")) else None
        )
    reversibility = facts.get("COMPRESSION_REVERSIBILITY", "")
    return None if reversibility == "LOSSLESS" else Loss(name=name, is_certain=reversibility == "LOSSY")


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


def _stored(path: Path, series: Any, *, is_copied: bool, is_pillows: bool) -> np.ndarray | None:
    """Return the pixels of tifffile's series, bands last; None where Pillow has to unpack them.

    A copy, which may be written to, is in memory, or in a temporary file if it is large.
    """
    import tifffile

    array: np.ndarray
    page = series.keyframe
    if not _is_unpacked_by_tifffile(page):
        is_for_rasterio = len(series.pages) == 1 and not is_pillows and page.compression not in JPEG
        return _read_by_rasterio(path, series.nbytes) if is_for_rasterio and find_spec("rasterio") else None
    if not is_copied and series.dataoffset is not None and page.is_memmappable:
        array = tifffile.memmap(path, mode="r")
    else:
        array = series.asarray(out="memmap" if series.nbytes > LARGE else None)
    are_bands_first = array.ndim == 3 and not series.axes.endswith(("S", "C")) and series.axes.endswith("YX")
    return np.moveaxis(array, 0, -1) if are_bands_first else array


def _is_unpacked_by_tifffile(page: Any) -> bool:
    """Whether tifffile knows a page's compression, by itself or with the package imagecodecs."""
    from tifffile import TIFF

    if page.compression not in TIFF.DECOMPRESSORS or page.predictor not in TIFF.UNPREDICTORS:
        return False
    if find_spec("imagecodecs"):
        return True
    has_codec = page.compression not in ZSTD or sys.version_info >= (3, 14)
    return has_codec and page.bitspersample in WHOLE_BITS


def _read_by_rasterio(path: Path, num_bytes: int) -> np.ndarray:
    """Return all bands, (H, W) or (H, W, bands)."""
    from rasterio.errors import RasterioError

    try:
        with open_raster(path) as file:
            shape, dtype = (file.count, file.height, file.width), file.dtypes[0]
            if num_bytes > LARGE:
                with tempfile.TemporaryFile() as kept:
                    array: np.ndarray = np.memmap(kept, dtype=dtype, mode="w+", shape=shape)
            else:
                array = np.empty(shape, dtype=dtype)
            file.read(out=array)
    except RasterioError as cause:
        raise DataError(f"{path}: broken, or compressed in a way that needs imagecodecs: {cause.__cause__ or cause}") from cause
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Give rasterio's view of a file, which may have no place on the earth."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings_as("ignore", NotGeoreferencedWarning):
        file = rasterio.open(path)
    with file:
        yield file
