"""Published data sets that torchvision reads: which of their parts is used for what, and what their masks mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from zoo.data.class_colors import Colour
from zoo.data.image_tensors import image_to_tensor
from zoo.data.masks.masks import Mask, MaskCode
from zoo.data.segmentation_data import IGNORED, SegmentationData
from zoo.errors import DataError

__all__ = ["PUBLISHED", "open_published"]

VALIDATION_EVERY = 10
"""One in so many of the images for training is for validation, since the published validation part is the test."""
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """How one of them is asked for.

    Attributes:
        train: torchvision's keywords for the part that is trained on and, one image in ten, validated on.
        test: those for the part that is tested on: the one with published masks.
        classes: their names.
        values: the mask's value of each class.
        ignored: the mask's values that are left out.
        can_download: whether torchvision fetches it.
        source: where it comes from.
        colours: its own, if it has some; by default PASCAL VOC's.
    """

    train: Mapping[str, Any]
    test: Mapping[str, Any]
    classes: tuple[str, ...]
    values: tuple[int, ...]
    source: str
    can_download: bool = True
    ignored: tuple[int, ...] = (IGNORED,)
    colours: tuple[Colour, ...] = ()


_CITYSCAPES = [each for each in datasets.Cityscapes.classes if not each.ignore_in_eval]

PUBLISHED: dict[str, Published] = {
    "OxfordIIITPet": Published(
        train={"split": "trainval", "target_types": "segmentation"},
        test={"split": "test", "target_types": "segmentation"},
        classes=("pet", "background", "border"),
        values=(1, 2, 3),
        ignored=(),
        source="Parkhi et al. 2012, Oxford-IIIT Pet (CC BY-SA 4.0)",
    ),
    "VOCSegmentation": Published(
        train={"image_set": "train"},
        test={"image_set": "val"},
        classes=tuple(VOC.split()),
        values=tuple(range(21)),
        source="Everingham et al. 2012, PASCAL VOC",
    ),
    "Cityscapes": Published(
        train={"split": "train", "mode": "fine", "target_type": "semantic"},
        test={"split": "val", "mode": "fine", "target_type": "semantic"},
        classes=tuple(each.name for each in _CITYSCAPES),
        values=tuple(each.id for each in _CITYSCAPES),
        ignored=tuple(each.id % 256 for each in datasets.Cityscapes.classes if each.ignore_in_eval),
        source="Cordts et al. 2016, Cityscapes (its own terms, not for commercial use)",
        can_download=False,
        colours=tuple(each.color for each in _CITYSCAPES),
    ),
    "SBDataset": Published(
        train={"image_set": "train", "mode": "segmentation"},
        test={"image_set": "val", "mode": "segmentation"},
        classes=tuple(VOC.split()),
        values=tuple(range(21)),
        source="Hariharan et al. 2011, Semantic Boundaries",
    ),
}


def open_published(name: str, *, root: str | None = None, download: bool = False) -> SegmentationData:
    """Return one of torchvision's data sets. Its images differ in size, so that training needs a `size`.

    Args:
        name: one of `PUBLISHED`.
        root: the folder that torchvision looks in.
        download: whether it may fetch what is not there.

    Raises:
        DataError: no root, or the files are not there.
    """
    facts = PUBLISHED[name]
    if root is None:
        folder = f" For the folder {name} that is here, give ./{name}." if Path(name).is_dir() else ""
        raise DataError(f"{name}: give root=, the folder that torchvision.datasets.{name} is to look in.{folder}")
    if download and not facts.can_download:
        raise DataError(f"{name} must be fetched by hand: torchvision.datasets.{name} says from where, and how to lay it out.")
    how = {"download": True} if download else {}
    train, test = (_made(name, root, **keywords, **how) for keywords in (facts.train, facts.test))
    held = [index for index in range(len(train)) if index % VALIDATION_EVERY == VALIDATION_EVERY - 1]
    kept = [index for index in range(len(train)) if index % VALIDATION_EVERY != VALIDATION_EVERY - 1]
    if not kept or not held or not len(test):
        raise DataError(f"{name} in {root}: {len(train)} images to train on and {len(test)} to test on are too few.")
    code = MaskCode(num_classes=len(facts.classes), values=facts.values, ignored=facts.ignored)
    return SegmentationData(
        name=name,
        classes=facts.classes,
        train=_Part(f"{name}, train part", train, kept, code),
        validation=_Part(f"{name}, validation part", train, held, code),
        test=_Part(f"{name}, test part", test, range(len(test)), code),
        colours=facts.colours,
        source=f"{facts.source}, from {root}",
    )


class _Part:
    """Some images of a data set, their masks' values brought to class indexes."""

    def __init__(self, told: str, dataset: Any, indexes: Sequence[int], code: MaskCode) -> None:
        self._told = told
        self._dataset = dataset
        self._indexes = indexes
        self._code = code

    def __len__(self) -> int:
        return len(self._indexes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number = self._indexes[index]
        try:
            image, mask = self._dataset[number]
            pixels, values = np.asarray(image.convert("RGB")), np.array(mask)
        except (
            OSError,
            SyntaxError,
            ValueError,
        ) as cause:  # of Pillow and SciPy; torchvision reads a file when it is asked for
            raise DataError(f"{self._told}: its image {index} or the mask cannot be read: {cause}") from cause
        try:
            return image_to_tensor(pixels), torch.from_numpy(self._code.to_indexes(Mask(pixels=values)))
        except DataError as cause:
            raise DataError(f"{self._told}: the mask of its image {index}: {cause}") from cause


def _made(name: str, root: str, **keywords: Any) -> Any:
    make: Callable[..., Any] = getattr(datasets, name)
    try:
        return make(str(Path(root).expanduser()), **keywords)
    except (RuntimeError, OSError) as cause:
        told = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise DataError(f"{name} is not in {root} as torchvision.datasets.{name} expects it: {told}") from cause
