"""Masks: their files read in one way, what their values stand for, and class indexes made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from zoo.data.class_colors import Colour
from zoo.data.formats.files import read_mask_pixels
from zoo.data.segmentation_data import IGNORED, ignored_index
from zoo.errors import DataError

__all__ = ["Mask", "MaskCode", "MaskValue", "listed", "mask_code", "read_mask", "values_in"]

MaskValue: TypeAlias = int | Colour
"""What a pixel of a mask is: a number, or a color."""

MOST_COLOURS = 64
"""Of one mask. One with more is a photograph, or was compressed with loss."""
MOST_UNNAMED = 64
"""Classes that are taken from the masks' values alone."""
MOST_LISTED = 16
SMALL = 2**16
"""Numbers below this are looked up in a table."""
CHUNK = 2**20
"""Pixels that are counted at once."""
LARGEST = 2**53
"""Up to which floating-point numbers (float64) tell all whole numbers apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A mask as its file holds it.

    Attributes:
        pixels: (H, W) of whole numbers (of a palette, its indexes), or (H, W, 3) of colors, uint8.
        colors: by number, the color in which the file shows it, of those that occur; {} where it is the number, as a gray.
        repeated: those of `colors` that the file's palette has for further numbers, too.
        doubt: the compression that may have changed the pixels, where the file does not say whether it did; "" for none.
    """

    pixels: np.ndarray
    colors: Mapping[int, Colour] = field(default_factory=dict)
    repeated: frozenset[Colour] = frozenset()
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCode:
    """How masks say which class a pixel has.

    Attributes:
        num_classes: how many there are.
        values: the number that stands for each class; by default 0, 1, 2, ...
        colours: the color that stands for each class, in place of `values`.
        ignored: the numbers, or the colors, of pixels that are left out.
    """

    num_classes: int
    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    ignored: tuple[MaskValue, ...] = (IGNORED,)

    def __post_init__(self) -> None:
        for name, given in (("values", self.values), ("colours", self.colours)):
            if given and len(given) != self.num_classes:
                raise DataError(f"{name}: one a class is needed, {self.num_classes}; found {len(given)}.")
            if len(set(given)) < len(given):
                raise DataError(f"{name}: one stands for two classes: {given}.")
        if both := [value for value in self.ignored if value in self.known]:
            raise DataError(f"{listed(both)} is both a class and ignored. Give each value to one of them.")
        kind = tuple if self.colours else int
        if others := [value for value in self.ignored if not isinstance(value, kind)]:
            told = "colors, such as [[224, 224, 192]]" if self.colours else "numbers, such as [255]"
            raise DataError(f"ignored: these masks have {told}; found {listed(others)}.")

    @property
    def known(self) -> Sequence[MaskValue]:
        """Return the number or the color of each class, in their order."""
        return self.colours or self.values or range(self.num_classes)

    @property
    def table(self) -> str:
        """Return the values of the classes and those that are left out, in words."""
        return listed(self.known) + (f" ({listed(self.ignored)} is ignored)" if self.ignored else "")

    @property
    def ignored_index(self) -> int:
        """Return what stands in the class indexes where a pixel is left out."""
        return ignored_index(self.num_classes)

    def strange(self, values: Iterable[MaskValue]) -> list[MaskValue]:
        """Return those of some values that are no class and are not ignored."""
        known = {*self.known, *self.ignored}
        return [value for value in values if value not in known]

    def indexes(self, mask: Mask) -> np.ndarray:
        """Return class indexes (H, W), int64, of a mask; `ignored_index` where a pixel is left out.

        Where classes have colors, so have the numbers of a palette.

        Raises:
            DataError: numbers where colors are expected or the reverse, or values that stand for nothing.
        """
        values, places = _unique(mask.pixels)
        if self.colours:
            values = [mask.colors.get(value, value) if isinstance(value, int) else value for value in values]
        if any(isinstance(value, tuple) != bool(self.colours) for value in values):
            found, wanted = ("numbers", "colors") if self.colours else ("colors", "numbers")
            raise DataError(f"its pixels are {found}, and {wanted} are expected")
        if strange := self.strange(values):
            raise DataError(f"{listed(strange)} is no class; classes are {self.table}")
        index_of = dict.fromkeys(self.ignored, self.ignored_index) | {value: index for index, value in enumerate(self.known)}
        indexes = np.array([index_of[value] for value in values], dtype=np.int64)
        looked_up: np.ndarray = indexes[places].reshape(mask.pixels.shape[:2])
        return looked_up


def read_mask(path: Path) -> Mask:
    """Return a mask: whole numbers, or colors.

    Yes and no (bool, 1 bit) become 1 and 0, and floating-point numbers that are all whole become integers. Opacity is dropped
    if it says nothing that the color does not say.

    Raises:
        DataError: the file cannot be read, its compression changed it (JPEG), or its pixels are neither numbers nor colors.
    """
    stored = read_mask_pixels(path)
    mask = _whole(path, stored.array)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise DataError(f"{path}: a mask is (H, W) of numbers or (H, W, 3) of colors; found the shape {mask.shape}")
    if stored.has_alpha and mask.ndim == 3:
        mask = _without_opacity(path, mask)
    if mask.ndim == 3 and mask.shape[-1] != 3:
        raise DataError(
            f"{path}: a mask is (H, W) of numbers or (H, W, 3) of colors; found the shape {mask.shape}. If each class has a "
            "channel of its own (one-hot), save the number of each pixel's channel (argmax over the channels)"
        )
    if mask.ndim == 3 and not (mask.min() >= 0 and mask.max() <= 255):
        raise DataError(f"{path}: colors have parts of 0 to 255; found {mask.min()} to {mask.max()}")
    if stored.loss and stored.loss.is_certain:
        values, _ = _unique(mask)
        raise DataError(
            f"{path}: {stored.loss.name} changes a mask's values; found {listed(values)}. Save masks without loss, such as "
            "PNG, from their originals"
        )
    pixels = mask.astype(np.uint8, copy=False) if mask.ndim == 3 else mask
    doubt = stored.loss.name if stored.loss else ""
    if pixels.ndim > 2 or stored.colors is None:
        return Mask(pixels=pixels, doubt=doubt)
    palette = [(int(red), int(green), int(blue)) for red, green, blue in stored.colors]
    numbers = np.flatnonzero(np.bincount(pixels.ravel()))
    # Many programs write as many colors as there are classes, and 255 for what is left out.
    colors = {int(number): palette[number] for number in numbers if number < len(palette)}
    counts = Counter(palette)
    repeated = frozenset(color for color in colors.values() if counts[color] > 1)
    return Mask(pixels=pixels, colors=colors, repeated=repeated, doubt=doubt)


def values_in(mask: Mask) -> dict[MaskValue, int]:
    """Return how often each number or color is in a mask.

    Raises:
        DataError: it has more colors than a mask has classes.
    """
    values, places = _unique(mask.pixels)
    if mask.pixels.ndim == 3 and len(values) > MOST_COLOURS:
        raise DataError(f"{len(values)} colors; a mask has one a class (compression with loss changes them: save masks as PNG)")
    counts = np.zeros(len(values), dtype=np.int64)
    for start in range(0, len(places), CHUNK):
        counts += np.bincount(places[start : start + CHUNK], minlength=len(values))
    return {value: int(count) for value, count in zip(values, counts, strict=True)}


def mask_code(
    found: Collection[MaskValue],
    *,
    classes: Sequence[str] = (),
    values: Sequence[int] = (),
    colours: Sequence[Colour] = (),
    ignored: Sequence[MaskValue] | None = None,
) -> MaskCode:
    """Return how masks are to be read: as was asked, else as their values leave no doubt.

    Args:
        found: the values of all masks.
        classes: the classes' names, if they have some.
        values: the number of each class.
        colours: the color of each class.
        ignored: the values of pixels that are left out; None for 255, where it is not a class.

    Raises:
        DataError: what was asked contradicts itself, or what the values mean is a guess.
    """
    if values and colours:
        raise DataError("values are for masks of numbers, and colours for masks of colors: give one of them.")
    count = len(classes) or len(values) or len(colours)
    if count == 1:
        raise DataError("There is 1 class; a mask has at least two, the background among them.")
    if colours:
        return MaskCode(num_classes=count, colours=tuple(colours), ignored=tuple(ignored or ()))
    numbers = sorted(value for value in found if isinstance(value, int))
    if drawn := sorted(value for value in found if not isinstance(value, int)):
        raise DataError(f"The masks are drawn in colors: give colours, one a class. Found: {listed(drawn)}.")
    if values:
        usual = () if IGNORED in values else (IGNORED,)
        return MaskCode(num_classes=count, values=tuple(values), ignored=usual if ignored is None else tuple(ignored))
    if ignored is None and count in (0, 2) and len(numbers) == 2 and numbers[0] == 0:  # such as 0 and 255
        return MaskCode(num_classes=2, values=(numbers[0], numbers[1]), ignored=())
    usual = () if count > IGNORED else (IGNORED,)
    code = MaskCode(num_classes=max(2, count), ignored=usual if ignored is None else tuple(ignored))
    kept = [value for value in numbers if value not in code.ignored]
    remedy = (
        f"Found: {listed(numbers)}. Give values, the value of each class in their order, and ignored, the values to leave out."
    )
    if not count:
        if kept != list(range(len(kept))) or not 2 <= len(kept) <= MOST_UNNAMED:
            raise DataError(f"What the masks' values stand for is not clear: without names, classes are 0, 1, 2, ... {remedy}")
        return replace(code, num_classes=len(kept))
    if not code.strange(kept):
        if len(kept) < 2:
            raise DataError(f"Of {count} classes the masks have {listed(kept) or 'none'} alone. {remedy}")
        if ignored is None and len(numbers) == count > len(kept):
            raise DataError(f"The masks have as many values as classes, and {IGNORED} may be a class or left out. {remedy}")
    return code


def _whole(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a mask's pixels as whole numbers."""
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if np.issubdtype(mask.dtype, np.integer):
        return mask
    if not np.issubdtype(mask.dtype, np.floating):
        raise DataError(f"{path}: its pixels are {mask.dtype}, not numbers")
    if count := int((~np.isfinite(mask)).sum()):
        raise DataError(
            f"{path}: {count} pixels are not finite (NaN or infinity), and a mask's are whole numbers. Write a number of their "
            f"own there, such as {IGNORED}, which is ignored"
        )
    parts = mask[mask != np.floor(mask)]
    if parts.size or float(np.abs(mask).max(initial=0)) > LARGEST:
        found = f"such as {parts[0]:g}" if parts.size else f"up to {np.abs(mask).max():g}"
        raise DataError(f"{path}: its pixels are {mask.dtype}, and not whole numbers of a class: {found}")
    whole: np.ndarray = mask.astype(np.int64)
    return whole


def _without_opacity(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return the colors, or the numbers, alone: (H, W, 2) -> (H, W), (H, W, 4) -> (H, W, 3)."""
    seen = np.unique(mask.reshape(-1, mask.shape[-1]), axis=0)
    if len(np.unique(seen[:, :-1], axis=0)) < len(seen):
        raise DataError(
            f"{path}: pixels of one color differ in opacity, which is not read. Save the mask without opacity, each class in a "
            "color of its own"
        )
    return mask[..., 0] if mask.shape[-1] == 2 else mask[..., :-1]


def _unique(mask: np.ndarray) -> tuple[list[MaskValue], np.ndarray]:
    """Return the numbers or colors of a mask, sorted, and where in that list each pixel's is: (H * W)."""
    if mask.ndim == 2 and mask.min() >= 0 and mask.max() < SMALL:  # a table takes much less time and memory than sorting
        is_there = np.zeros(SMALL, dtype=bool)
        is_there[mask] = True
        place_of = (np.cumsum(is_there) - 1).astype(np.uint16)
        return [int(number) for number in np.flatnonzero(is_there)], place_of[mask].ravel()
    if mask.ndim == 2:
        numbers, places = np.unique(mask, return_inverse=True)
        return [int(number) for number in numbers], places.ravel()
    red, green, blue = (mask[..., channel].astype(np.int64) for channel in range(3))
    packed, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    return [(int(each) >> 16, int(each) >> 8 & 255, int(each) & 255) for each in packed], places.ravel()


def listed(values: Sequence[MaskValue]) -> str:
    """Return values as a text: all of a few, else the first and the last."""
    if len(values) <= MOST_LISTED:
        return ", ".join(map(str, values))
    half = MOST_LISTED // 2
    first, last = (", ".join(map(str, part)) for part in (values[:half], values[-half:]))
    return f"{first}, ..., {last} ({len(values)} values)"
