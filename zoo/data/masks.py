"""From a mask as it was drawn to class indexes: numbers as they are, grey values, or colours by a table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zoo.data.segmentation_data import IGNORED, Colour
from zoo.errors import DataError

__all__ = ["MaskCode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCode:
    """How masks say which class a pixel has.

    Attributes:
        num_classes: how many there are.
        values: the number that stands for each class; by default 0, 1, 2, ...
        colours: the colour that stands for each class, in place of `values`.
        ignored: the numbers of pixels that are left out.
        ignored_colours: their colours.
    """

    num_classes: int
    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    ignored: tuple[int, ...] = (IGNORED,)
    ignored_colours: tuple[Colour, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("values", "colours"):
            given = getattr(self, name)
            if given and len(given) != self.num_classes:
                raise DataError(f"{name}: one a class is needed, {self.num_classes}; found {len(given)}.")
            if len(set(given)) < len(given):
                raise DataError(f"{name}: one stands for two classes: {given}.")

    def indexes(self, mask: np.ndarray) -> np.ndarray:
        """Return class indexes (H, W), int64, and `IGNORED` where a pixel is left out.

        Raises:
            DataError: numbers or colours that stand for nothing.
        """
        if self.colours:
            return self._of_colours(mask)
        if mask.ndim != 2:
            raise DataError(f"a mask of shape {mask.shape}; numbers (H, W) are expected: give colours, a colour a class")
        if not np.issubdtype(mask.dtype, np.integer):
            raise DataError(f"its pixels are {mask.dtype}, not whole numbers")
        return self._looked_up(mask.astype(np.int64), self.values or tuple(range(self.num_classes)), self.ignored, str)

    def _of_colours(self, mask: np.ndarray) -> np.ndarray:
        if mask.ndim != 3 or mask.shape[-1] != 3:
            raise DataError(f"a mask of shape {mask.shape}; colours (H, W, 3) are expected")
        return self._looked_up(_packed(mask), _packed_all(self.colours), _packed_all(self.ignored_colours), _told_colour)

    def _looked_up(self, found: np.ndarray, known: tuple[int, ...], ignored: tuple[int, ...], told: object) -> np.ndarray:
        assert callable(told)
        values, places = np.unique(found, return_inverse=True)
        index_of = dict.fromkeys(ignored, IGNORED) | {value: index for index, value in enumerate(known)}
        if strange := [int(value) for value in values if int(value) not in index_of]:
            named = ", ".join(told(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
            raise DataError(f"{named} is no class; there are {', '.join(map(told, known))}, and {told(IGNORED)} is left out")
        indexes = np.array([index_of[int(value)] for value in values], dtype=np.int64)
        return indexes[places].reshape(found.shape)


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed


def _packed_all(colours: tuple[Colour, ...]) -> tuple[int, ...]:
    return tuple(red << 16 | green << 8 | blue for red, green, blue in colours)


def _told_colour(packed: int) -> str:
    return f"({packed >> 16}, {packed >> 8 & 255}, {packed & 255})"
