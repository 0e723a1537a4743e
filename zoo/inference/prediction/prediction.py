"""The prediction for an image: a class for each pixel, and the probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.class_colors import Color, class_colors
from zoo.data.masks.drawing import overlay_mask, to_rgb
from zoo.errors import OptionError
from zoo.model.model import SegmentationModel

__all__ = ["Canvas", "Prediction", "check_array", "mask_values"]

PALETTE = 256
"""The most colors in a palette."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """A model's output for one image.

    Attributes:
        mask: (H, W) of class indexes, uint8, or uint16 for more than 256 classes. Of a model with one class: 1 where its
            probability is a half or more.
        probabilities: (classes, H, W), of each pixel's classes; None where they were not asked for.
        classes: the names of the mask's values.
        colors: one for each.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None
    classes: tuple[str, ...] = field(repr=False)
    colors: tuple[Color, ...] = field(repr=False)

    def picture(self) -> Image.Image:
        """Return the mask as an image with a palette: its pixels are class indexes, shown in the classes' colors.

        With more than 256 classes it is 16-bit gray.
        """
        height, width = self.mask.shape
        if len(self.colors) > PALETTE:
            return Image.fromarray(self.mask.astype(np.uint16, copy=False))
        indexes = np.ascontiguousarray(self.mask, dtype=np.uint8)  # it may have been written to an array of another type
        image = Image.frombuffer("P", (width, height), indexes, "raw", "P", 0, 1)
        image.putpalette([part for color in self.colors for part in color])
        return image

    def overlay(self, image: np.ndarray) -> Image.Image:
        """Return an image, (H, W) or (H, W, channels), with the mask drawn over it; class 0 is left as it is if it is black."""
        table = np.array(self.colors, dtype=np.float32)
        return Image.fromarray(overlay_mask(to_rgb(image), table[self.mask]).astype(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """The arrays that the rows of an image are written to, in memory or mapped from files.

    Attributes:
        mask: (H, W).
        probabilities: (classes, H, W); None where they are not kept.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None

    def put(self, top: int, probabilities: Tensor) -> None:
        """Write the rows from `top` on, given their probabilities (classes, rows, W)."""
        rows = slice(top, top + probabilities.shape[1])
        indexes = probabilities[0] >= 0.5 if len(probabilities) == 1 else probabilities.argmax(0)
        self.mask[rows] = indexes.to(torch.uint8 if len(probabilities) <= PALETTE else torch.int32).cpu().numpy()
        if self.probabilities is not None:
            self.probabilities[:, rows] = probabilities.cpu().numpy()


def check_array(name: str, array: np.ndarray | None, shape: tuple[int, ...], least: np.dtype[Any]) -> None:
    """Refuse an array to write to that has another shape, or a type that does not hold all of the least one's numbers.

    Raises:
        OptionError: it is such.
    """
    if array is not None and (array.shape != shape or not np.can_cast(least, array.dtype)):
        raise OptionError(
            f"{name}= is an array of the shape {shape} here, of {least} or a type that holds it; found {array.shape} of "
            f"{array.dtype}."
        )


def mask_values(model: SegmentationModel) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Return the names and the colors of a mask's values."""
    count = model.pairing.classes
    names = model.class_names or tuple(f"class {index}" for index in range(count))
    if count == 1:
        return ("background", *names), class_colors(2) if not model.colors else ((0, 0, 0), *model.colors)
    return names, model.colors or class_colors(count)
