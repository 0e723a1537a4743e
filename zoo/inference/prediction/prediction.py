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
"""The largest number of colors in a palette."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """A model's output for one image.

    Attributes:
        mask: the class index of each pixel, (H, W), uint8, or uint16 for more than 256 classes. For a model with one class, 1
            if the probability of the class is at least 0.5, and 0 otherwise.
        probabilities: the probability of each class at each pixel, (classes, H, W); None if they were not requested.
        classes: the names of the mask's values.
        colors: the colors of the mask's values.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None
    classes: tuple[str, ...] = field(repr=False)
    colors: tuple[Color, ...] = field(repr=False)

    def picture(self) -> Image.Image:
        """Return the mask as an image with a palette. Its pixels are class indexes, displayed in the colors of the classes.

        With more than 256 classes, the image is 16-bit gray and has no palette.
        """
        height, width = self.mask.shape
        if len(self.colors) > PALETTE:
            return Image.fromarray(self.mask.astype(np.uint16, copy=False))
        indexes = np.ascontiguousarray(self.mask, dtype=np.uint8)  # a user's array for the mask may have another dtype
        image = Image.frombuffer("P", (width, height), indexes, "raw", "P", 0, 1)
        image.putpalette([part for color in self.colors for part in color])
        return image

    def overlay(self, image: np.ndarray) -> Image.Image:
        """Return an image, (H, W) or (H, W, channels), with the mask drawn over it. Pixels of a black class stay unchanged."""
        table = np.array(self.colors, dtype=np.float32)
        return Image.fromarray(overlay_mask(to_rgb(image), table[self.mask]).astype(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """The arrays that the results of an image are written to, in memory or memory-mapped from files.

    Attributes:
        mask: the class indexes, (H, W).
        probabilities: the probabilities, (classes, H, W); None if they were not requested.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None

    def put(self, top: int, probabilities: Tensor) -> None:
        """Write the results of some rows, given their probabilities (classes, rows, W). The first of these rows is `top`."""
        rows = slice(top, top + probabilities.shape[1])
        indexes = probabilities[0] >= 0.5 if len(probabilities) == 1 else probabilities.argmax(0)
        self.mask[rows] = indexes.to(torch.uint8 if len(probabilities) <= PALETTE else torch.int32).cpu().numpy()
        if self.probabilities is not None:
            self.probabilities[:, rows] = probabilities.cpu().numpy()


def check_array(name: str, array: np.ndarray | None, shape: tuple[int, ...], least: np.dtype[Any]) -> None:
    """Check that results of the dtype `least` can be written to a user's array.

    Raises:
        OptionError: the array has another shape, or its dtype cannot represent all numbers of `least`.
    """
    if array is not None and (array.shape != shape or not np.can_cast(least, array.dtype)):
        raise OptionError(
            f"{name}= must be an array of shape {shape} with a dtype that can hold every value of {least}; found the shape "
            f"{array.shape} and the dtype {array.dtype}."
        )


def mask_values(model: SegmentationModel) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Return the names and the colors of the values in a mask."""
    count = model.pairing.classes
    names = model.class_names or tuple(f"class {index}" for index in range(count))
    if count == 1:
        return ("background", *names), class_colors(2) if not model.colors else ((0, 0, 0), *model.colors)
    return names, model.colors or class_colors(count)
