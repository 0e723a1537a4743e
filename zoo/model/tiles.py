"""Cover an image with overlapping tiles, and compute the weights for averaging their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from zoo.errors import OptionError
from zoo.registry.image_sizes import ImageSizes, Size

__all__ = ["Axis", "TileLike", "default_overlap", "tile_axes", "tile_sides"]

TileLike: TypeAlias = int | Literal["auto"] | None
TILE = 1024
"""The default side of a tile, in pixels."""
OVERLAP = 4
"""The default overlap of two tiles is the side of a tile divided by this number."""
LEFT_OUT = 4
"""The outermost pixels of an overlap have the weight 0. Their number is the overlap divided by this number.

At these pixels, the encoder lacks the pixels beyond the edge of the tile.
"""


def tile_sides(sizes: ImageSizes, tile: TileLike, overlap: int | None) -> tuple[Size | None, int]:
    """Return two values: (H, W) of the tiles, or None if images are not divided; and the overlap of the tiles in pixels.

    Args:
        sizes: the image sizes that the encoder accepts.
        tile: the requested side of a tile; "auto" for the default side, None if images are not divided.
        overlap: the requested overlap; None for the default overlap.

    Raises:
        OptionError: the encoder does not accept the tile, or the overlap is more than half of a tile.
    """
    if tile is None:
        return None, 0
    if sizes.fixed is not None:
        if tile not in ("auto", *sizes.fixed):
            raise OptionError(
                f"tile={tile}: tiles must be {sizes.fixed[0]}x{sizes.fixed[1]}, the only size that the encoder accepts."
            )
        sides = sizes.fixed
    elif tile == "auto":
        sides = sizes.holding((TILE, TILE))
    else:
        is_side = isinstance(tile, int) and tile > 0
        if not is_side or sizes.holding((tile, tile)) != (tile, tile):
            near = sizes.holding((tile, tile) if is_side else (TILE, TILE))[0]
            raise OptionError(
                f"tile must be a side length in pixels that the encoder accepts ({sizes}), such as {near}; found {tile!r}."
            )
        sides = (tile, tile)
    shared = default_overlap(sides) if overlap is None else overlap
    if not isinstance(shared, int) or not 0 <= shared <= min(sides) // 2:
        raise OptionError(f"overlap must be an integer from 0 to {min(sides) // 2} pixels, half of a tile; found {shared!r}.")
    return sides, shared


def default_overlap(tile: Size) -> int:
    """Return the default overlap, in pixels, of tiles of the size (H, W)."""
    return min(tile) // OVERLAP


def tile_axes(size: Size, *, sizes: ImageSizes, tile: Size, overlap: int) -> tuple[Axis, Axis]:
    """Return the tiles along the height and along the width of an image.

    Args:
        size: (H, W) of the image.
        sizes: the image sizes that the encoder accepts.
        tile: (H, W) of a tile.
        overlap: the overlap of two neighboring tiles in pixels, up to half of a tile.
    """
    if sizes.fixed is None and not sizes.square:  # tiles need not be larger than the padded image
        height, width = sizes.holding(size)
        tile = (min(tile[0], height), min(tile[1], width))
    multiple = 1 if sizes.fixed else sizes.multiple
    rows, columns = (
        Axis(length=length, tile=side, overlap=overlap, multiple=multiple) for length, side in zip(size, tile, strict=True)
    )
    return rows, columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Tiles along one axis of an image.

    Tiles begin at multiples of `multiple`, so that an encoder's strides fall on the same pixels as in the whole image. The last
    tile ends where the image ends, or less than `multiple` pixels beyond it.

    Attributes:
        length: the length of the image, in pixels.
        tile: the length of a tile, a multiple of `multiple`.
        overlap: the requested overlap of two neighboring tiles, up to half of a tile. Tiles may overlap by more, so that they
            begin at multiples of `multiple`. They overlap by less only if they are hardly larger than `multiple`.
        multiple: a number of pixels, such as the encoder's coarsest stride. Every tile begins at a multiple of it.
    """

    length: int
    tile: int
    overlap: int
    multiple: int

    @property
    def starts(self) -> tuple[int, ...]:
        """Return the first pixel of each tile."""
        if self.length <= self.tile:
            return (0,)
        last = -(-(self.length - self.tile) // self.multiple) * self.multiple
        return (*range(0, last, self._step), last)

    def weights(self) -> tuple[np.ndarray, ...]:
        """Return the weight of each pixel of each tile, float32. The weights of all tiles at a pixel of the image sum to 1."""
        starts = self.starts
        total = np.zeros(starts[-1] + self.tile, dtype=np.float32)
        counts_of_tiles = []
        shared = min(self.overlap, self.tile - self._step)
        rise = _rise(shared)
        for index, start in enumerate(starts):
            counts = np.ones(self.tile, dtype=np.float32)
            if index > 0:
                counts[:shared] = rise
            if index + 1 < len(starts):
                counts[self.tile - shared :] = rise[::-1]
            total[start : start + self.tile] += counts
            counts_of_tiles.append(counts)
        return tuple(counts / total[start : start + self.tile] for counts, start in zip(counts_of_tiles, starts, strict=True))

    @property
    def _step(self) -> int:
        """Return the largest distance between the starts of neighboring tiles."""
        return max(self.multiple, (self.tile - self.overlap) // self.multiple * self.multiple)


def _rise(length: int) -> np.ndarray:
    """Return weights that are 0 in the first fourth of the pixels, rise linearly to 1, and are 1 in the last fourth."""
    edge = length // LEFT_OUT
    line = (np.arange(length, dtype=np.float32) - edge + 0.5) / max(1, length - 2 * edge)
    return line.clip(0, 1)
