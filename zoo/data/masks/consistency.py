"""Check that a value means the same in all masks of a folder."""

from __future__ import annotations

from pathlib import Path

from zoo.data.class_colors import Color
from zoo.data.folders.scan import FolderReport
from zoo.data.masks.masks import MaskValue
from zoo.data.segmentation_data import IGNORED
from zoo.errors import DataError

__all__ = ["check_one_palette", "check_one_scale"]

ONE_PALETTE = (
    "If colors identify the classes, set `colors` to one color per class, so that the colors are read instead of the numbers. "
    "Otherwise save all masks with one palette, or as plain numbers without a palette."
)


def check_one_palette(report: FolderReport) -> None:
    """Raise a DataError if a number has different colors in two masks, or if a color stands for different numbers.

    A mask without a palette displays its numbers as gray levels. For such a mask, the check of numbers is skipped, and the
    check of colors skips the number 0, since palettes use black for various numbers. In all masks, the check of colors skips
    colors that occur more than once in a palette.
    """
    if not any(facts.colors for facts in report.facts.values()):
        return
    color_of: dict[int, tuple[Color, Path]] = {}
    ambiguous: set[Color] = set()
    for pair in report.pairs:
        facts = report.facts[pair.image]
        for number, color in facts.colors.items():
            first_color, path = color_of.setdefault(number, (color, pair.mask))
            if color != first_color:
                raise DataError(
                    f"Masks disagree on colors: {number} is {first_color} in {path}, but {color} in {pair.mask}. {ONE_PALETTE}"
                )
        ambiguous.update(facts.repeated)
    number_of: dict[Color, tuple[int, Path]] = {}
    for pair in report.pairs:
        facts = report.facts[pair.image]
        grays = {value: (value,) * 3 for value in facts.values if isinstance(value, int) and 0 < value < 256}
        for number, color in (facts.colors or grays).items():
            first_number, path = number_of.setdefault(color, (number, pair.mask))
            if number != first_number and color not in ambiguous:
                raise DataError(
                    f"Masks disagree on colors: {color} is {first_number} in {path}, but {number} in {pair.mask}. {ONE_PALETTE}"
                )


def check_one_scale(report: FolderReport) -> None:
    """Raise a DataError if some masks contain 0 and 1, and others contain 0 and 255, apparently for the same class."""
    if report.values.keys() != {0, 1, IGNORED}:
        return
    example: dict[MaskValue, Path] = {}
    for pair in report.pairs:
        foreground = report.facts[pair.image].values.keys() & {1, IGNORED}
        if len(foreground) > 1:  # a mask has both values, so they mean different classes
            return
        for value in foreground:
            example.setdefault(value, pair.mask)
    raise DataError(
        f"Some masks (such as {example[1]}) contain the values 0 and 1, and others (such as {example[IGNORED]}) contain 0 and "
        f"{IGNORED}. No mask contains both 1 and {IGNORED}, so these two values may mean the same class. Save all masks with "
        f"the same values, or set ignored=[{IGNORED}] to ignore the pixels with {IGNORED}."
    )
