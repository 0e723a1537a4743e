"""Decide, for validation and test, which images are predicted whole, and into which tiles larger images are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from zoo.model.model import SegmentationModel
from zoo.registry.image_sizes import ImageSizes

__all__ = ["Tiling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The tiles in which images larger than the training crop are predicted.

    Attributes:
        crop: (H, W) of the training crops.
        sizes: the image sizes that the model accepts.
        tile: (H, W) of a tile: the smallest size that the model accepts and that contains the crop. If the model accepts only
            one size, it is that size.
    """

    crop: tuple[int, int]
    sizes: ImageSizes
    tile: tuple[int, int]

    @classmethod
    def of(cls, model: nn.Module, crop: tuple[int, int]) -> Tiling:
        """Return the tiles for a model.

        If zoo did not build the model, the tiles have the size of the crop, since no other size is known to be accepted.
        """
        sizes = model.plan.sizes.sizes if isinstance(model, SegmentationModel) else ImageSizes(fixed=crop)
        return cls(crop=crop, sizes=sizes, tile=sizes.fixed or sizes.holding(crop))

    def takes_whole(self, size: Sequence[int]) -> bool:
        """Return whether the model predicts images of this (H, W) whole."""
        return any(size[0] <= height and size[1] <= width for height, width in (self.crop, self.tile))
