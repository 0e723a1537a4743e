"""Read masks from files, choose the class that each mask value means, and convert masks to class indexes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from zoo.common.format_names import format_count
from zoo.data.class_colors import Color
from zoo.data.formats.files import read_mask_pixels
from zoo.data.segmentation_data import IGNORED, ignored_index
from zoo.errors import DataError

__all__ = ["Mask", "MaskCode", "MaskValue", "choose_mask_code", "count_values", "format_values", "read_mask"]

MaskValue: TypeAlias = int | Color
"""The value of a pixel of a mask: a number or a color."""

MOST_COLORS = 64
"""The largest number of colors in a mask. A mask with more colors is a photograph, or its compression was lossy."""
MOST_UNNAMED = 64
"""The largest number of classes that are inferred from the values of the masks, if the classes have no names."""
MOST_SHOWN = 16
SMALL = 2**16
"""Numbers below this are looked up in a table instead of sorted."""
CHUNK = 2**20
"""The number of pixels that are processed at once. NumPy needs 8 bytes for each index of a pixel, and more for sorting."""
LARGEST = 2**53
"""Up to this number, float64 represents every integer exactly."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A mask with the values that are stored in its file.

    Attributes:
        pixels: integers (H, W), which are indexes if the file has a palette, or colors (H, W, 3), uint8.
        colors: the color that each number in the mask is displayed in; {} if numbers are displayed as gray levels.
        repeated: the colors that the file's palette assigns to more than one number.
        doubt: the name of the compression if it may have changed the pixels and the file does not record this; "" otherwise.
    """

    pixels: np.ndarray
    colors: Mapping[int, Color] = field(default_factory=dict)
    repeated: frozenset[Color] = frozenset()
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCode:
    """The mask value of each class.

    Attributes:
        num_classes: the number of classes.
        values: the number that stands for each class in a mask; by default 0, 1, 2, ...
        colors: the color that stands for each class, used in place of `values`.
        ignored: the numbers or the colors of pixels to ignore.
    """

    num_classes: int
    values: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignored: tuple[MaskValue, ...] = (IGNORED,)

    def __post_init__(self) -> None:
        options: dict[str, Sequence[MaskValue]] = {"values": self.values, "colors": self.colors}
        for name, values in options.items():
            if values and len(values) != self.num_classes:
                raise DataError(f"{name} must have {self.num_classes} entries, one for each class; found {len(values)}.")
            if len(set(values)) < len(values):
                raise DataError(f"{name}: two classes have the same value: {values}. Give each class its own value.")
        if both := [value for value in self.ignored if value in self.class_values]:
            raise DataError(f"ignored: {format_values(both)} is also the value of a class. Remove it from one of them.")
        value_type = tuple if self.colors else int
        if wrong := [value for value in self.ignored if not isinstance(value, value_type)]:
            expected = "colors, such as [[224, 224, 192]]" if self.colors else "numbers, such as [255]"
            raise DataError(f"ignored: expected {expected}, like the values of the classes; found {format_values(wrong)}.")

    @property
    def class_values(self) -> Sequence[MaskValue]:
        """The number or the color of each class, in the order of the classes."""
        return self.colors or self.values or range(self.num_classes)

    @property
    def description(self) -> str:
        """The values of the classes and the ignored values, as text for messages."""
        return format_values(self.class_values) + (f" ({format_values(self.ignored)} is ignored)" if self.ignored else "")

    @property
    def ignored_index(self) -> int:
        """The class index of an ignored pixel."""
        return ignored_index(self.num_classes)

    def find_unknown(self, values: Iterable[MaskValue]) -> list[MaskValue]:
        """Return the values that do not belong to a class and are not ignored."""
        known = {*self.class_values, *self.ignored}
        return [value for value in values if value not in known]

    def to_indexes(self, mask: Mask) -> np.ndarray:
        """Return the class indexes (H, W) of a mask, int64, with `ignored_index` for ignored pixels.

        If the classes have colors, the indexes of a palette are replaced by their colors first.

        Raises:
            DataError: the mask has numbers instead of colors, colors instead of numbers, or values that belong to no class.
        """
        values, positions = _find_values(mask.pixels)
        if self.colors:
            values = [mask.colors.get(value, value) if isinstance(value, int) else value for value in values]
        if any(isinstance(value, tuple) != bool(self.colors) for value in values):
            found, expected = ("numbers", "colors") if self.colors else ("colors", "numbers")
            raise DataError(f"expected pixels that are {expected}; found {found}")
        if unknown := self.find_unknown(values):
            raise DataError(f"no class has the value {format_values(unknown)}; the classes have {self.description}")
        index_of = dict.fromkeys(self.ignored, self.ignored_index)
        index_of |= {value: index for index, value in enumerate(self.class_values)}
        indexes = np.array([index_of[value] for value in values], dtype=np.int64)
        mask_indexes = np.empty(len(positions), dtype=np.int64)
        for chunk in _chunks(len(positions)):
            mask_indexes[chunk] = indexes[positions[chunk]]
        return mask_indexes.reshape(mask.pixels.shape[:2])


def read_mask(path: Path) -> Mask:
    """Read a mask of integers or of colors.

    Booleans become 0 and 1, and floating-point numbers become integers if all of them are whole. An alpha channel is dropped if
    all pixels of the same color have the same opacity.

    Raises:
        DataError: the file cannot be read, its compression changes values (such as JPEG), its pixels are neither integers nor
            colors, or pixels of the same color differ in opacity.
    """
    stored = read_mask_pixels(path)
    mask = _to_integers(path, stored.array)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise DataError(f"{path}: a mask must have numbers (H, W) or colors (H, W, 3); found the shape {mask.shape}")
    if stored.has_alpha and mask.ndim == 3:
        mask = _drop_alpha(path, mask)
    if mask.ndim == 3 and mask.shape[-1] != 3:
        raise DataError(
            f"{path}: a mask must have numbers (H, W) or colors (H, W, 3); found the shape {mask.shape}. If each class has a "
            "channel (one-hot), save the argmax over the channels"
        )
    if mask.ndim == 3 and not (mask.min() >= 0 and mask.max() <= 255):
        raise DataError(f"{path}: the channels of a color must be from 0 to 255; found {mask.min()} to {mask.max()}")
    if stored.loss and stored.loss.is_certain:
        values, _ = _find_values(mask)
        raise DataError(
            f"{path}: {stored.loss.name} changes the values of masks; this mask contains {format_values(values)}. Save the "
            "original masks with lossless compression, such as PNG"
        )
    pixels = mask.astype(np.uint8, copy=False) if mask.ndim == 3 else mask
    doubt = stored.loss.name if stored.loss else ""
    if pixels.ndim > 2 or stored.colors is None:
        return Mask(pixels=pixels, doubt=doubt)
    palette = [(int(red), int(green), int(blue)) for red, green, blue in stored.colors]
    numbers = np.flatnonzero(np.bincount(pixels.ravel()))
    # Many programs write a palette without a color for 255, the number of ignored pixels.
    colors = {int(number): palette[number] for number in numbers if number < len(palette)}
    counts = Counter(palette)
    repeated = frozenset(color for color in colors.values() if counts[color] > 1)
    return Mask(pixels=pixels, colors=colors, repeated=repeated, doubt=doubt)


def count_values(mask: Mask) -> dict[MaskValue, int]:
    """Return the number of pixels of each value in a mask.

    Raises:
        DataError: the mask has more than `MOST_COLORS` colors, so that they cannot be classes.
    """
    values, positions = _find_values(mask.pixels)
    if mask.pixels.ndim == 3 and len(values) > MOST_COLORS:
        raise DataError(
            f"the mask has {len(values)} colors, but a mask has one color per class. Lossy compression adds colors: save as PNG"
        )
    counts = np.zeros(len(values), dtype=np.int64)
    for chunk in _chunks(len(positions)):
        counts += np.bincount(positions[chunk], minlength=len(values))
    return {value: int(count) for value, count in zip(values, counts, strict=True)}


def choose_mask_code(
    mask_values: Collection[MaskValue],
    *,
    classes: Sequence[str] = (),
    values: Sequence[int] = (),
    colors: Sequence[Color] = (),
    ignored: Sequence[MaskValue] | None = None,
) -> MaskCode:
    """Return the mask value of each class, as requested or else inferred from the values of the masks.

    Args:
        mask_values: the values that occur in the masks.
        classes: the names of the classes, if they have names.
        values: the number that stands for each class in a mask.
        colors: the color that stands for each class in a mask.
        ignored: the values of pixels to ignore. None ignores 255 unless it is a class.

    Raises:
        DataError: the options contradict each other, or the values of the masks are ambiguous.
    """
    if values and colors:
        raise DataError("`values` is for masks with numbers, and `colors` is for masks with colors. Set only one of them.")
    count = len(classes) or len(values) or len(colors)
    if count == 1:
        raise DataError("At least two classes are required, including the background; found 1.")
    if colors:
        return MaskCode(num_classes=count, colors=tuple(colors), ignored=tuple(ignored or ()))
    numbers = sorted(value for value in mask_values if isinstance(value, int))
    if colors := sorted(value for value in mask_values if not isinstance(value, int)):
        raise DataError(f"The masks have colors. Set `colors` to one color per class. Found: {format_values(colors)}.")
    if values:
        default = () if IGNORED in values else (IGNORED,)
        return MaskCode(num_classes=count, values=tuple(values), ignored=default if ignored is None else tuple(ignored))
    if ignored is None and count in (0, 2) and len(numbers) == 2 and numbers[0] == 0:  # such as 0 and 255
        return MaskCode(num_classes=2, values=(numbers[0], numbers[1]), ignored=())
    default = () if count > IGNORED else (IGNORED,)
    code = MaskCode(num_classes=max(2, count), ignored=default if ignored is None else tuple(ignored))
    kept = [value for value in numbers if value not in code.ignored]
    remedy = (
        f"Found: {format_values(numbers)}. Set `values` to the value of each class, in the order of the classes, and `ignored` "
        "to the values to ignore."
    )
    if not count:
        if kept != list(range(len(kept))) or not 2 <= len(kept) <= MOST_UNNAMED:
            raise DataError(f"The values of the masks are ambiguous: without class names, they must be 0, 1, 2, ... {remedy}")
        return replace(code, num_classes=len(kept))
    # The caller reports values that belong to no class, since it knows the files of the masks.
    if not code.find_unknown(kept):
        if len(kept) < 2:
            raise DataError(f"Of {count} classes, the masks have only {format_values(kept) or 'none'}. {remedy}")
        if ignored is None and len(numbers) == count > len(kept):
            raise DataError(f"The masks have as many values as classes, and {IGNORED} may be a class or ignored. {remedy}")
    return code


def _to_integers(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask as integers.

    Raises:
        DataError: the pixels are not whole numbers.
    """
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if np.issubdtype(mask.dtype, np.integer):
        return mask
    if not np.issubdtype(mask.dtype, np.floating):
        raise DataError(f"{path}: its pixels are {mask.dtype}, not numbers")
    if count := int((~np.isfinite(mask)).sum()):
        raise DataError(
            f"{path}: {format_count(count, 'non-finite pixel')} (NaN or infinity), but a mask has whole numbers. Replace "
            f"them with a number that no class has, such as {IGNORED}, which is ignored"
        )
    fractions = mask[mask != np.floor(mask)]
    if fractions.size or float(np.abs(mask).max(initial=0)) > LARGEST:
        example = f"such as {fractions[0]:g}" if fractions.size else f"up to {np.abs(mask).max():g}"
        raise DataError(f"{path}: the pixels of a mask must be whole numbers; found {mask.dtype}, {example}")
    integers: np.ndarray = mask.astype(np.int64)
    return integers


def _drop_alpha(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return the numbers or the colors without opacity: (H, W, 2) -> (H, W), (H, W, 4) -> (H, W, 3)."""
    rgba = np.unique(mask.reshape(-1, mask.shape[-1]), axis=0)
    if len(np.unique(rgba[:, :-1], axis=0)) < len(rgba):
        raise DataError(
            f"{path}: pixels of the same color differ in opacity, but opacity is not used. Save the mask without an alpha "
            "channel, with one color per class"
        )
    return mask[..., 0] if mask.shape[-1] == 2 else mask[..., :-1]


def _find_values(mask: np.ndarray) -> tuple[list[MaskValue], np.ndarray]:
    """Return the sorted values of a mask, and for each pixel the position of its value among the sorted values, (H * W,)."""
    pixels = mask.reshape(-1, *mask.shape[2:])
    chunks = list(_chunks(len(pixels)))
    if mask.ndim == 2 and mask.min() >= 0 and mask.max() < SMALL:  # a table needs much less time than sorting
        occurs = np.zeros(SMALL, dtype=bool)
        for chunk in chunks:
            occurs[pixels[chunk]] = True
        position_of = (np.cumsum(occurs) - 1).astype(np.uint16)
        positions = np.empty(len(pixels), dtype=np.uint16)
        for chunk in chunks:
            positions[chunk] = position_of[pixels[chunk]]
        return [int(number) for number in np.flatnonzero(occurs)], positions
    numbers = np.unique(np.concatenate([np.unique(_to_numbers(pixels[chunk])) for chunk in chunks]))
    positions = np.empty(len(pixels), dtype=np.uint32)
    for chunk in chunks:
        positions[chunk] = np.searchsorted(numbers, _to_numbers(pixels[chunk]))
    if mask.ndim == 2:
        return [int(number) for number in numbers], positions
    return [(int(color) >> 16, int(color) >> 8 & 255, int(color) & 255) for color in numbers], positions


def _to_numbers(pixels: np.ndarray) -> np.ndarray:
    """Return one number for each pixel. Sorting numbers is much faster than sorting colors."""
    if pixels.ndim == 1:
        return pixels
    red, green, blue = (pixels[:, channel].astype(np.uint32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _chunks(count: int) -> Iterator[slice]:
    """Yield slices of at most `CHUNK` pixels that together cover `count` pixels."""
    for start in range(0, count, CHUNK):
        yield slice(start, start + CHUNK)


def format_values(values: Sequence[MaskValue]) -> str:
    """Return mask values as text; if there are many, only the first and the last ones."""
    if len(values) <= MOST_SHOWN:
        return ", ".join(map(str, values))
    half = MOST_SHOWN // 2
    first, last = (", ".join(map(str, part)) for part in (values[:half], values[-half:]))
    return f"{first}, ..., {last} ({len(values)} values)"
