"""Write the small scenes of configs/scenes: synthetic images of six sites, and for each image a mask of the fields.

Each image has four bands of 12-bit values.

python scripts/write_scenes.py configs/scenes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SITES = ("delta", "hill", "lake", "plain", "steppe", "valley")
SCENES_PER_SITE = 4
SIDE = 48
SPECTRA = np.array([(420, 510, 620, 900), (640, 430, 800, 1300)])
"""The mean values of the four bands: the first row outside the fields, the second row inside them. The largest possible value
is 4095."""


def write_scenes(folder: Path) -> None:
    """Write an image (SIDE, SIDE, 4) of uint16 and a mask (SIDE, SIDE) of 0 and 1 for each scene."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for site in SITES:
        brightness = random.uniform(0.8, 1.2)
        for number in range(SCENES_PER_SITE):
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            top, left = random.integers(0, SIDE // 2, 2)
            mask[top : top + SIDE // 2, left : left + SIDE // 2] = 1
            scene = brightness * SPECTRA[mask] + random.normal(0, 40, (SIDE, SIDE, 4))
            name = f"{site}_{number:02}"
            np.save(folder / "images" / f"{name}.npy", scene.clip(0, 4095).astype(np.uint16))
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_scenes(parser.parse_args().folder)
