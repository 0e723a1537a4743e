"""Tiles of a few large images as samples, for tasks made from one photograph, one volume or one film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.data.image_tensors import image_to_tensor

__all__ = ["Tiles", "tile_corners"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Square tiles of images.

    Attributes:
        images: the images, each (H, W) or (H, W, channels).
        masks: the masks of the images, each (H, W), with class indexes.
        positions: for each tile, the index of its image, its top row and its left column.
        size: the side length of a tile, in pixels.
    """

    images: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    positions: Sequence[tuple[int, int, int]]
    size: int

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, top, left = self.positions[index]
        window = np.s_[top : top + self.size, left : left + self.size]
        return image_to_tensor(self.images[image][window]), torch.from_numpy(self.masks[image][window].astype(np.int64))


def tile_corners(rows: tuple[int, int], columns: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the corner (top, left) of each tile of a grid that fits into the half-open ranges `rows` and `columns`."""
    for top in range(rows[0], rows[1] - size + 1, size):
        for left in range(columns[0], columns[1] - size + 1, size):
            yield top, left
