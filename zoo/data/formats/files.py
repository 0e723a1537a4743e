"""Images and masks as files: PNG, JPEG and whatever Pillow reads, TIFF of any depth and number of channels, NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, UnidentifiedImageError

from zoo.common.regular_files import check_regular
from zoo.data.formats.compression import Loss, loss_in
from zoo.data.formats.pillow_limits import any_number_of_pixels, told_large, warnings_as
from zoo.data.formats.tiff import ORIENTATION, Tiff, grays, read_tiff
from zoo.errors import DataError

__all__ = ["SUFFIXES", "TIFF", "MaskPixels", "array_of", "is_turned", "read_array", "read_image", "read_mask_pixels"]

SUFFIXES = frozenset({".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TIFF = frozenset({".tif", ".tiff"})
AS_THEY_ARE = ("L", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F", "1", "LA")
"""Pillow's modes whose pixels are the image's own; others (palettes, CMYK, YCbCr, Lab) become RGB."""
LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "AVIF": "AVIF", "HEIF": "HEIF"}
"""Pillow's names of formats that change numbers, and what they are called here."""
UPRIGHT = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""By orientation, the steps through rows and columns, of 5 and above after these are swapped."""


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
    _check_regular(path)
    if path.suffix.lower() == ".npy":
        return _array(path), False
    tiff = _tiff_of(path, any_size=any_size)
    if tiff and tiff.array is not None and not tiff.is_pillows:
        return _upright(tiff.shown(tiff.array), tiff.orientation), tiff.has_alpha
    with any_number_of_pixels() if any_size else nullcontext(), _opened(path, tiff) as image:
        array = array_of(image)
    if tiff is None:
        return array, path.suffix.lower() not in TIFF
    if not tiff.is_pillows:
        _check_whole(tiff, array)
        array = tiff.shown(array) if array.dtype == np.uint16 else tiff.filled(array)  # of 16 bits they are as they are stored
    return array, tiff.has_alpha


def array_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of Pillow's image, turned as its EXIF says; palettes, CMYK, YCbCr and Lab become RGB."""
    image.load()  # of a TIFF, this turns it as well, and changes its tag
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # whose numbers have 16 bits at most
        array = np.asarray(image).astype(np.uint16)
    elif image.mode in AS_THEY_ARE:
        array = np.asarray(image)
    elif image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        array = np.asarray(image.convert("RGBA").convert("RGB"))  # by way of what Pillow advises for such palettes
    else:
        array = np.asarray(image.convert("RGB"))
    return _upright(array, orientation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskPixels:
    """A mask's pixels as its file holds them.

    Attributes:
        array: (H, W), of a palette its indexes, or (H, W, channels).
        has_alpha: whether the last channel is opacity.
        colors: (count, 3), uint8: the color in which the file shows each number; None where it is the number, as a gray.
        loss: what compression did, or may have done, to them; None for nothing.
    """

    array: np.ndarray
    has_alpha: bool = False
    colors: np.ndarray | None = None
    loss: Loss | None = None


def read_mask_pixels(path: Path) -> MaskPixels:
    """Return a mask's pixels as its file holds them; `zoo.data.masks.masks.read_mask` says what they mean.

    Raises:
        DataError: as `read_array`.
    """
    _check_regular(path)
    if path.suffix.lower() == ".npy":
        return MaskPixels(array=_array(path))
    tiff = _tiff_of(path)
    if tiff and tiff.array is not None and not tiff.is_pillows:
        array = _upright(tiff.array, tiff.orientation)
        return MaskPixels(array=array, has_alpha=tiff.has_alpha, colors=tiff.colors_shown, loss=tiff.loss)
    with _opened(path, tiff) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        colors = grays(1) if image.mode == "1" else _palette(image)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        array = np.asarray(image)
        bits = tiff.bits if tiff else _bits_of_png(path) if image.format == "PNG" else 8
        if image.mode == "L" and bits < 8:  # Pillow brings them to 0 to 255
            array, colors = array // (255 // (2**bits - 1)), grays(bits)
        if tiff and not tiff.is_pillows:
            _check_whole(tiff, array)
            colors = tiff.colors_shown
            if tiff.is_dark and image.mode in ("1", "L"):  # Pillow inverts them
                array = (array == 0) if image.mode == "1" else 2**bits - 1 - array
        loss = tiff.loss if tiff else _loss(path, image)
        return MaskPixels(array=_upright(array, orientation), has_alpha=image.mode in ("RGBA", "LA"), colors=colors, loss=loss)


def _palette(image: Image.Image) -> np.ndarray | None:
    """Return the colors of an image's palette, (count, 3), uint8; None if it has none."""
    if image.mode not in ("P", "PA"):
        return None
    return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def _bits_of_png(path: Path) -> int:
    """Return how many bits a number of a PNG has."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _loss(path: Path, image: Image.Image) -> Loss | None:
    """Return what the compression of an image lost, as Pillow and its bytes say."""
    if image.format in LOSSY:
        return Loss(name=LOSSY[image.format], is_certain=True)
    if image.format == "TIFF" and (name := str(image.info.get("compression", ""))).endswith(("jpeg", "webp")):
        return Loss(name=name.removeprefix("tiff_"), is_certain=name.endswith("jpeg"))
    return loss_in(path.read_bytes()) if image.format in ("WEBP", "JPEG2000") else None


def is_turned(path: Path) -> bool:
    """Return whether a file's EXIF says that its pixels are stored in another orientation than they are shown in.

    Of a file that Pillow does not know, as of a NumPy array, this is False.
    """
    try:
        with warnings_as("ignore", Warning), Image.open(path) as image:
            return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _check_regular(path: Path) -> None:
    try:
        check_regular(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror}") from cause


def _check_whole(tiff: Tiff, array: np.ndarray) -> None:
    """Raise a DataError if Pillow has read some of a TIFF's bands alone, or numbers of another type."""
    channels = 1 if array.ndim == 2 else array.shape[-1]
    is_other = tiff.dtype.itemsize > 1 and array.dtype != tiff.dtype
    if (channels != tiff.samples and tiff.palette is None) or is_other:
        raise DataError(
            f"{tiff.path}: {tiff.samples} bands of {tiff.dtype}, compressed in a way of which Pillow reads {channels} of "
            f"{array.dtype}; {_needed()}"
        )


def _needed() -> str:
    """Return what reads TIFFs that are compressed in ways that neither tifffile nor Pillow knows."""
    return "install " + ("imagecodecs" if find_spec("rasterio") else "'segmentation-zoo[geo]' or imagecodecs")


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image turned as the tag of EXIF and TIFF says: what its first row and column are, 1 (top, left) to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows, columns = UPRIGHT.get(orientation, (1, 1))
    return array if (rows, columns) == (1, 1) else array[::rows, ::columns]


def _tiff_of(path: Path, *, any_size: bool = False) -> Tiff | None:
    is_known = path.suffix.lower() in TIFF and find_spec("tifffile")
    return read_tiff(path, any_size=any_size) if is_known else None


@contextmanager
def _opened(path: Path, tiff: Tiff | None) -> Iterator[Image.Image]:
    """Give an image that Pillow has read whole; of a TIFF, what is known of it."""
    install = ""
    if tiff is not None and tiff.array is None:
        install = f"; {_needed()} for its compression"
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
    except Exception as cause:  # a header that is no Python literal, sizes that no memory has: NumPy raises what these do
        raise DataError(f"{path}: no NumPy array of numbers, as numpy.save writes one: {cause}") from cause
    return found
