"""Which overlapping tiles cover an image, and how much each says about a pixel where several do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from zoo.errors import OptionError
from zoo.registry.image_sizes import ImageSizes, Size

__all__ = ["Axis", "TileLike", "default_overlap", "tile_axes", "tile_sides"]

TileLike: TypeAlias = int | Literal["auto"] | None
TILE = 1024
"""The side of a tile, unasked."""
OVERLAP = 4
"""A fourth of a tile, at least, is its neighbor's as well."""
LEFT_OUT = 4
"""A fourth of an overlap, at each tile's edge, counts for nothing: there an encoder sees the edge and not the image."""


def tile_sides(sizes: ImageSizes, tile: TileLike, overlap: int | None) -> tuple[Size | None, int]:
    """Return (H, W) of an encoder's tiles, None for none, and their overlap, as asked for or by default.

    Raises:
        OptionError: a tile that the encoder does not take, or an overlap of more than half of one.
    """
    if tile is None:
        return None, 0
    if sizes.fixed is not None:
        if tile not in ("auto", *sizes.fixed):
            raise OptionError(f"tile={tile}: the encoder is made for {sizes.fixed[0]}x{sizes.fixed[1]}; tiles are of that.")
        sides = sizes.fixed
    elif tile == "auto":
        sides = sizes.holding((TILE, TILE))
    else:
        is_side = isinstance(tile, int) and tile > 0
        if not is_side or sizes.holding((tile, tile)) != (tile, tile):
            near = sizes.holding((tile, tile) if is_side else (TILE, TILE))[0]
            raise OptionError(f"tile is a side that the encoder takes ({sizes}), such as {near}; found {tile!r}.")
        sides = (tile, tile)
    shared = default_overlap(sides) if overlap is None else overlap
    if not isinstance(shared, int) or not 0 <= shared <= min(sides) // 2:
        raise OptionError(f"overlap is 0 to half of a tile, {min(sides) // 2} pixels here; found {shared!r}.")
    return sides, shared


def default_overlap(tile: Size) -> int:
    """Return by how many pixels tiles of (H, W) overlap, unasked."""
    return min(tile) // OVERLAP


def tile_axes(size: Size, *, sizes: ImageSizes, tile: Size, overlap: int) -> tuple[Axis, Axis]:
    """Return the tiles along the height and along the width of an image.

    Args:
        size: (H, W) of the image.
        sizes: those that the encoder takes.
        tile: (H, W) of a tile.
        overlap: of two neighbors, in pixels, up to half of a tile.
    """
    if sizes.fixed is None and not sizes.square:  # no longer than the image, which a whole one would not be either
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

    They begin at multiples of `multiple`, so that an encoder's strides fall on the same pixels as in the whole image. The last
    one ends at the image's end, or beyond it by less than `multiple`.

    Attributes:
        length: of the image, in pixels.
        tile: of a tile, a multiple of `multiple`.
        overlap: of two neighbors, at least, up to half of a tile; less where tiles are hardly larger than `multiple`.
        multiple: of the encoder's strides.
    """

    length: int
    tile: int
    overlap: int
    multiple: int

    @property
    def starts(self) -> tuple[int, ...]:
        """Return where each tile begins."""
        if self.length <= self.tile:
            return (0,)
        last = -(-(self.length - self.tile) // self.multiple) * self.multiple
        return (*range(0, last, self._step), last)

    def weights(self) -> tuple[np.ndarray, ...]:
        """Return what each pixel of each tile counts, float32; those of all tiles add up to 1 at every pixel of the image."""
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
        """Return how far apart tiles begin, at most."""
        return max(self.multiple, (self.tile - self.overlap) // self.multiple * self.multiple)


def _rise(length: int) -> np.ndarray:
    """Return weights in a straight line from 0 to 1, with the outermost part 0 and the innermost 1."""
    edge = length // LEFT_OUT
    line = (np.arange(length, dtype=np.float32) - edge + 0.5) / max(1, length - 2 * edge)
    return line.clip(0, 1)
