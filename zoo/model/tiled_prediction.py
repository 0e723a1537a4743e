"""Predict an image tile by tile, and blend the probabilities where tiles overlap."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.model.tiles import Axis

__all__ = ["predict_in_tiles"]


def predict_in_tiles(
    rows: Axis,
    columns: Axis,
    *,
    batch: int,
    device: torch.device,
    read: Callable[[int, int], Tensor],
    predict: Callable[[Tensor], Tensor],
    write: Callable[[int, Tensor], None],
) -> None:
    """Predict an image tile by tile, from top to bottom. Only the weighted sums of one row of tiles are in memory.

    Args:
        rows: the tiles along the image's height.
        columns: the tiles along the image's width.
        batch: the number of tiles that are predicted together.
        device: the device of the probabilities.
        read: returns the normalized pixels (channels, h, w) of the tile that begins at (top, left), without the part beyond the
            bottom or right edge of the image. This function fills that part of the tile with 0, since the model pads images
            with 0, too.
        predict: computes probabilities (N, classes, h, w), float32, from tiles (N, channels, h, w).
        write: called with the first row of each finished strip of the image and the probabilities (classes, rows, W) of the
            strip. This tensor is overwritten after the call.
    """
    tops, lefts = rows.starts, columns.starts
    down, along = ([torch.from_numpy(each).to(device) for each in axis.weights()] for axis in (rows, columns))
    sums: Tensor | None = None
    for row, top in enumerate(tops):
        for first in range(0, len(lefts), batch):
            numbers = range(first, min(first + batch, len(lefts)))
            tiles = torch.stack([_pad(read(top, lefts[column]), rows.tile, columns.tile) for column in numbers])
            for column, probabilities in zip(numbers, predict(tiles), strict=True):
                if sums is None:
                    sums = torch.zeros(len(probabilities), rows.tile, lefts[-1] + columns.tile, device=device)
                weights = down[row][:, None] * along[column][None, :]
                sums[:, :, lefts[column] : lefts[column] + columns.tile].addcmul_(probabilities, weights)
        assert sums is not None
        done = (tops[row + 1] if row + 1 < len(tops) else rows.length) - top
        write(top, sums[:, :done, : columns.length])
        # Move the rows that the next row of tiles also covers to the top. Copy them first, since the two ranges overlap.
        sums[:, : rows.tile - done] = sums[:, done:].clone()
        sums[:, rows.tile - done :] = 0


def _pad(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return pixels (channels, h, w) with zeros below and to the right."""
    missing = (height - pixels.shape[1], width - pixels.shape[2])
    return F.pad(pixels, (0, missing[1], 0, missing[0])) if any(missing) else pixels
