"""Read image and mask files: all formats of Pillow, TIFF of any depth and number of channels, and NumPy arrays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, UnidentifiedImageError

from zoo.common.format_names import format_count
from zoo.common.regular_files import check_regular
from zoo.data.formats.compression import Loss, find_loss
from zoo.data.formats.pillow_limits import filter_warnings, lift_pixel_limit, size_error
from zoo.data.formats.tiff import ORIENTATION, Tiff, gray_colors, read_tiff
from zoo.errors import DataError

__all__ = [
    "SUFFIXES",
    "TIFF",
    "MaskPixels",
    "has_exif_orientation",
    "image_to_array",
    "read_array",
    "read_image",
    "read_mask_pixels",
]

SUFFIXES = frozenset({".bmp", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TIFF = frozenset({".tif", ".tiff"})
KEPT_MODES = ("L", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F", "1", "LA")
"""Pillow's modes whose pixels are not converted; other modes (palettes, CMYK, YCbCr, Lab) become RGB."""
LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "AVIF": "AVIF", "HEIF": "HEIF"}
"""Pillow's names of lossy formats, each with the name that messages use."""
_NPY_HEADER = threading.Lock()
"""Held while the header of a NumPy file is read.

NumPy parses the header with `ast`. In Python 3.11, this sometimes fails with a SystemError if several threads do so at once.
"""
STEPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""The slice steps of rows and columns for each EXIF orientation. For 5 and above, rows and columns are swapped first."""


def read_array(path: Path, *, any_size: bool = False) -> np.ndarray:
    """Return the pixels of an image, (H, W) or (H, W, channels). NumPy files and uncompressed TIFFs are memory-mapped.

    Args:
        path: the path of the file.
        any_size: whether to read images of more than 89 million pixels, Pillow's default limit. Set this only for files that
            you trust: a small file can claim to be a huge image.

    Raises:
        DataError: the file does not exist, is broken, is too large, or is not an image.
    """
    return read_image(path, any_size=any_size)[0]


def read_image(path: Path, *, any_size: bool = False) -> tuple[np.ndarray, bool]:
    """Return the pixels of an image, and whether its last channel is an alpha channel.

    The second value is meaningful only for two or four channels. A TIFF declares whether a channel is an alpha channel. In all
    other formats that Pillow reads, the last of two or four channels is an alpha channel. For the arguments and the errors, see
    `read_array`.
    """
    _check_regular(path)
    if path.suffix.lower() == ".npy":
        return _read_npy(path), False
    tiff = _read_tiff(path, any_size=any_size)
    if tiff and tiff.array is not None and not tiff.needs_pillow:
        return _apply_orientation(tiff.to_display(tiff.array), tiff.orientation), tiff.has_alpha
    with lift_pixel_limit() if any_size else nullcontext(), _open_image(path, tiff) as image:
        array = image_to_array(image)
    if tiff is None:
        return array, path.suffix.lower() not in TIFF
    if not tiff.needs_pillow:
        _check_complete(tiff, array)
        array = (
            tiff.to_display(array) if array.dtype == np.uint16 else tiff.fill_nodata(array)
        )  # Pillow has converted pixels of other dtypes for display
    return array, tiff.has_alpha


def image_to_array(image: Image.Image) -> np.ndarray:
    """Return the pixels of a Pillow image with its EXIF orientation applied; palettes, CMYK, YCbCr and Lab become RGB."""
    image.load()  # before the tag is read: for a TIFF, Pillow applies the orientation here and changes the tag
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # these formats have at most 16 bits
        array = np.asarray(image).astype(np.uint16)
    elif image.mode in KEPT_MODES:
        array = np.asarray(image)
    elif image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        array = np.asarray(image.convert("RGBA").convert("RGB"))  # the way that Pillow recommends for such palettes
    else:
        array = np.asarray(image.convert("RGB"))
    return _apply_orientation(array, orientation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskPixels:
    """The pixels of a mask as they are stored in its file.

    Attributes:
        array: (H, W), or (H, W, channels). If the file has a palette, the pixels are its indexes.
        has_alpha: whether the last channel is an alpha channel.
        colors: the color that each number is displayed in, (count, 3), uint8; None if a number n is displayed as the gray level
            n.
        loss: the lossy compression of the file; None if it is lossless.
    """

    array: np.ndarray
    has_alpha: bool = False
    colors: np.ndarray | None = None
    loss: Loss | None = None


def read_mask_pixels(path: Path) -> MaskPixels:
    """Return the pixels of a mask as they are stored in its file; `zoo.data.masks.masks.read_mask` interprets them.

    Raises:
        DataError: for the reasons that `read_array` lists.
    """
    _check_regular(path)
    if path.suffix.lower() == ".npy":
        return MaskPixels(array=_read_npy(path))
    tiff = _read_tiff(path)
    if tiff and tiff.array is not None and not tiff.needs_pillow:
        array = _apply_orientation(tiff.array, tiff.orientation)
        return MaskPixels(array=array, has_alpha=tiff.has_alpha, colors=tiff.display_colors, loss=tiff.loss)
    with _open_image(path, tiff) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        colors = gray_colors(1) if image.mode == "1" else _palette(image)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        array = np.asarray(image)
        bits = tiff.bits if tiff else _png_bits(path) if image.format == "PNG" else 8
        if image.mode == "L" and bits < 8:  # restore the stored numbers, which Pillow scales to 0 to 255
            array, colors = array // (255 // (2**bits - 1)), gray_colors(bits)
        if tiff and not tiff.needs_pillow:
            _check_complete(tiff, array)
            colors = tiff.display_colors
            if tiff.is_white_zero and image.mode in ("1", "L"):  # restore the stored numbers, which Pillow inverts
                array = (array == 0) if image.mode == "1" else 2**bits - 1 - array
        loss = tiff.loss if tiff else _find_loss(path, image)
        return MaskPixels(
            array=_apply_orientation(array, orientation), has_alpha=image.mode in ("RGBA", "LA"), colors=colors, loss=loss
        )


def _palette(image: Image.Image) -> np.ndarray | None:
    """Return the colors of the palette of an image, (count, 3), uint8; None if it has no palette."""
    if image.mode not in ("P", "PA"):
        return None
    return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def _png_bits(path: Path) -> int:
    """Return the bit depth of a PNG file."""
    with path.open("rb") as file:
        return file.read(25)[24]  # after the signature (8), the length and the name of IHDR (8), width and height (8)


def _find_loss(path: Path, image: Image.Image) -> Loss | None:
    """Return the lossy compression of an image, according to Pillow and the bytes of the file; None if it is lossless."""
    if image.format in LOSSY:
        return Loss(name=LOSSY[image.format], is_certain=True)
    if image.format == "TIFF" and (name := str(image.info.get("compression", ""))).endswith(("jpeg", "webp")):
        return Loss(name=name.removeprefix("tiff_"), is_certain=name.endswith("jpeg"))
    return find_loss(path.read_bytes()) if image.format in ("WEBP", "JPEG2000") else None


def has_exif_orientation(path: Path) -> bool:
    """Return whether the EXIF orientation of a file rotates or mirrors its pixels; False if Pillow cannot read the file."""
    if path.suffix.lower() == ".npy":  # Pillow would load all of its plugins before it gives up
        return False
    try:
        with filter_warnings("ignore", Warning), Image.open(path) as image:
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


def _check_complete(tiff: Tiff, array: np.ndarray) -> None:
    """Raise a DataError if Pillow has read only some bands of a TIFF, or has changed the dtype of the numbers."""
    channels = 1 if array.ndim == 2 else array.shape[-1]
    has_other_dtype = tiff.dtype.itemsize > 1 and array.dtype != tiff.dtype
    if (channels != tiff.samples and tiff.palette is None) or has_other_dtype:
        raise DataError(
            f"{tiff.path} has {tiff.samples} bands of {tiff.dtype}, but because of the file's compression, Pillow reads "
            f"{format_count(channels, 'band')} of {array.dtype}. To read the file completely, {_install_hint()}"
        )


def _install_hint() -> str:
    """Return the advice on packages that read TIFF compressions which neither tifffile nor Pillow reads."""
    return "install " + ("imagecodecs" if find_spec("rasterio") else "'segmentation-zoo[geo]' or imagecodecs")


def _apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror an image as the orientation tag of EXIF and TIFF requires: 1 (none) to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows, columns = STEPS.get(orientation, (1, 1))
    return array if (rows, columns) == (1, 1) else array[::rows, ::columns]


def _read_tiff(path: Path, *, any_size: bool = False) -> Tiff | None:
    """Return the image of a TIFF; None for other formats, and if tifffile is not installed."""
    has_reader = path.suffix.lower() in TIFF and find_spec("tifffile")
    return read_tiff(path, any_size=any_size) if has_reader else None


@contextmanager
def _open_image(path: Path, tiff: Tiff | None) -> Iterator[Image.Image]:
    """Yield an image that Pillow has loaded completely. `tiff` is the result of `_read_tiff` for the same file."""
    hint = ""
    if tiff is not None and tiff.array is None:
        hint = f"; {_install_hint()} for its compression"
    elif path.suffix.lower() in TIFF and not find_spec("tifffile"):
        hint = "; for TIFFs of more than 8 bits: pip install 'segmentation-zoo[tiff]'"
    try:
        with filter_warnings("error", Image.DecompressionBombWarning):
            image = Image.open(path)
        with image:
            frames = getattr(image, "n_frames", 1)
            # The additional frames of an MPO, and of a TIFF of one page, are smaller copies of the image.
            has_small_copies = image.format == "MPO" or (tiff is not None and tiff.num_pages == 1)
            if frames > 1 and not has_small_copies:
                raise DataError(f"{path}: expected one frame; found {frames}")
            image.load()
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image that Pillow can read{hint}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise size_error(path, str(cause).partition(",")[0]) from cause
    except DataError:
        raise
    except Exception as cause:  # on broken files, Pillow's readers raise IndexError, TypeError, RuntimeError, ...
        raise DataError(f"{path} is broken: {str(cause) or type(cause).__name__}{hint}") from cause


def _read_npy(path: Path) -> np.ndarray:
    try:
        with _NPY_HEADER:
            array: np.ndarray = open_memmap(path, mode="r")
    except Exception as cause:  # NumPy may raise any exception: it evaluates the header, which may be broken
        raise DataError(f"{path} is not a readable .npy file of numbers: {cause}") from cause
    return array
