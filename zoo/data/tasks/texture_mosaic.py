"""The task `texture-mosaic`: find the texture of each pixel, one of three. A pixel's color does not determine its texture.

Voronoi cells are filled with patches of scikit-image's photographs of brick, grass and gravel (CC0). The histogram of each
photograph is equalized, so that every gray level is equally frequent in all three. Training and test use different columns of
the photographs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.optional_packages import import_optional

__all__ = ["texture_mosaic"]

CLASSES = ("brick", "grass", "gravel")
COLUMNS = {"train": (0, 320), "validation": (328, 412), "test": (420, 512)}
"""The columns of the photographs that each split uses, with a gap between the splits. A photograph has 512 columns."""
COUNTS = {"train": 512, "validation": 16, "test": 48}
SIZE = 96
CELLS = (3, 7)
"""The smallest and the largest number of cells in a mosaic."""


def texture_mosaic() -> SegmentationData:
    """Return the mosaics of the task, which are the same in every call.

    Raises:
        DataError: scikit-image is not installed.
    """
    photographs = _photographs()
    parts = {name: _Mosaics(photographs, name, SIZE) for name in COLUMNS}
    return SegmentationData(
        name="texture-mosaic",
        classes=CLASSES,
        size=(SIZE, SIZE),
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        colors=((178, 84, 62), (92, 150, 70), (140, 140, 150)),
        source="scikit-image's brick, grass and gravel (CC0)",
    )


def _photographs() -> np.ndarray:
    """Return the three photographs, (3, 512, 512), float32 in 0 to 1, with equalized histograms."""
    data, exposure = import_optional("skimage.data"), import_optional("skimage.exposure")
    return np.stack([exposure.equalize_hist(getattr(data, name)()) for name in CLASSES]).astype(np.float32)


class _Mosaics:
    """The mosaics of one split (train, validation or test). The split and a mosaic's index seed its random numbers."""

    def __init__(self, photographs: np.ndarray, part: str, size: int) -> None:
        first, last = COLUMNS[part]
        self._columns = photographs[:, :, first:last]
        self._part = list(COLUMNS).index(part)
        self._count = COUNTS[part]
        self._size = size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        random = np.random.default_rng((self._part, index))
        size = self._size
        cells = int(random.integers(*CELLS, endpoint=True))
        seeds = random.uniform(0, size, (cells, 2))
        textures = random.permutation(np.arange(cells) % len(CLASSES))
        rows, columns = np.mgrid[:size, :size]
        nearest = ((rows[None] - seeds[:, 0, None, None]) ** 2 + (columns[None] - seeds[:, 1, None, None]) ** 2).argmin(0)
        mask = textures[nearest]
        image = np.empty((size, size), dtype=np.float32)
        for cell, texture in enumerate(textures):
            image = np.where(nearest == cell, self._patch(random, int(texture)), image)
        return torch.from_numpy(image).expand(3, size, size).clone(), torch.from_numpy(mask.astype(np.int64))

    def _patch(self, random: np.random.Generator, texture: int) -> np.ndarray:
        """Return a random patch of a photograph. A photograph that is too narrow is extended by mirroring."""
        source = self._columns[texture]
        height, width = source.shape
        if width < self._size or height < self._size:
            pads = [(0, max(0, self._size - side)) for side in source.shape]
            source = np.pad(source, pads, mode="symmetric")
            height, width = source.shape
        top, left = (int(random.integers(0, side - self._size, endpoint=True)) for side in (height, width))
        patch: np.ndarray = source[top : top + self._size, left : left + self._size]
        if random.random() < 0.5:
            patch = patch[:, ::-1]
        return patch
