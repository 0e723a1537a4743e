"""Draw some images of a folder and their masks on one sheet, so that mistakes can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from zoo.data.class_colors import Color, class_colors
from zoo.data.folders.scan import FolderReport
from zoo.data.formats.files import read_array
from zoo.data.masks.drawing import overlay_mask, to_rgb
from zoo.data.masks.masks import read_mask

__all__ = ["contact_sheet"]

MOST = 12
COLUMNS = 3
SIDE = 192
"""The length of the longer side of an image on the sheet, in pixels."""
CAPTION = 16
GAP = 6


def contact_sheet(report: FolderReport) -> Image.Image | None:
    """Draw up to twelve pairs from the whole folder: each image, and next to it the image with its mask.

    The numbers in the masks get the colors of `class_colors`, in ascending order. Masks that are stored as colors keep their
    colors. Return None if every pair of the folder has a problem.
    """
    pairs = [
        report.pairs[start] for start, end in pairwise(np.linspace(0, len(report.pairs), MOST + 1, dtype=int)) if end > start
    ]
    if not pairs:
        return None
    numbers = sorted(value for value in report.values if isinstance(value, int))
    colors = dict(zip(numbers, class_colors(len(numbers)), strict=True))
    cells = [
        _cell(read_array(pair.image), read_mask(pair.mask).pixels, f"{pair.part}: {pair.image.name}", colors) for pair in pairs
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


def _cell(image: np.ndarray, mask: np.ndarray, name: str, colors: Mapping[int, Color]) -> Image.Image:
    pixels = to_rgb(image)
    mask_colors = mask if mask.ndim == 3 else _to_colors(mask, colors)
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    cell = Image.new("RGB", (2 * SIDE, SIDE + CAPTION), "white")
    for column, picture in enumerate((pixels, overlay_mask(pixels, mask_colors))):
        cell.paste(Image.fromarray(picture.astype(np.uint8)).resize(size), (column * SIDE, 0))
    ImageDraw.Draw(cell).text((2, SIDE + 2), name, fill="black")
    return cell


def _to_colors(mask: np.ndarray, colors: Mapping[int, Color]) -> np.ndarray:
    """Return the color of each pixel, (H, W, 3). The keys of `colors` are the mask's values, in ascending order."""
    mask_colors: np.ndarray = np.array(list(colors.values()), dtype=float)[np.searchsorted(list(colors), mask)]
    return mask_colors
