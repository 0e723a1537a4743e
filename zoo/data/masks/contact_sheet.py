"""Some images of a folder with their masks drawn beside them, as one picture: what numbers do not show is seen at once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from zoo.data.class_colors import Colour, class_colours
from zoo.data.folder_scan import FolderReport
from zoo.data.formats.files import read_array
from zoo.data.masks.drawing import covered, visible
from zoo.data.masks.masks import read_mask

__all__ = ["contact_sheet"]

MOST = 12
COLUMNS = 3
SIDE = 192
"""Of an image on the sheet, in pixels, along its longer side."""
CAPTION = 16
GAP = 6


def contact_sheet(report: FolderReport) -> Image.Image | None:
    """Return a sheet of up to twelve pairs, spread over the folder: each image, and beside it the same under its mask.

    Colours stand for the masks' values in their order; a mask drawn in colours keeps its own. None where no pair is sound.
    """
    pairs = [
        report.pairs[start] for start, end in pairwise(np.linspace(0, len(report.pairs), MOST + 1, dtype=int)) if end > start
    ]
    if not pairs:
        return None
    numbers = sorted(value for value in report.values if isinstance(value, int))
    colours = dict(zip(numbers, class_colours(len(numbers)), strict=True))
    cells = [
        _cell(read_array(pair.image), read_mask(pair.mask).pixels, f"{pair.part}: {pair.image.name}", colours) for pair in pairs
    ]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    width = max(sum(cell.width + GAP for cell in row) for row in rows) + GAP
    height = sum(max(cell.height for cell in row) + GAP for row in rows) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    top = GAP
    for row in rows:
        left = GAP
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + GAP
        top += max(cell.height for cell in row) + GAP
    return sheet


def _cell(image: np.ndarray, mask: np.ndarray, name: str, colours: Mapping[int, Colour]) -> Image.Image:
    pixels = visible(image)
    drawn = mask if mask.ndim == 3 else _coloured(mask, colours)
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    cell = Image.new("RGB", (2 * SIDE, SIDE + CAPTION), "white")
    for place, part in enumerate((pixels, covered(pixels, drawn))):
        cell.paste(Image.fromarray(part.astype(np.uint8)).resize(size), (place * SIDE, 0))
    ImageDraw.Draw(cell).text((2, SIDE + 2), name, fill="black")
    return cell


def _coloured(mask: np.ndarray, colours: Mapping[int, Colour]) -> np.ndarray:
    """Return a mask's colours, (H, W, 3); the colours are sorted by the masks' values, and every value has one."""
    drawn: np.ndarray = np.array(list(colours.values()), dtype=float)[np.searchsorted(list(colours), mask)]
    return drawn
