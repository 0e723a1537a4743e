"""Published data sets that torchvision reads: which of their splits are used, and the mask value of each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from zoo.data.class_colors import Color
from zoo.data.image_tensors import image_to_tensor
from zoo.data.masks.masks import Mask, MaskCode
from zoo.data.segmentation_data import IGNORED, SegmentationData
from zoo.errors import DataError

__all__ = ["PUBLISHED", "open_published"]

VALIDATION_EVERY = 10
"""One in this many training images is used for validation, since the published validation images are used for the test."""
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set of torchvision.

    Attributes:
        train: the keyword arguments with which torchvision opens the images for training and validation.
        test: the keyword arguments with which torchvision opens the images for the test. It is a split whose masks are
            published.
        classes: the class names.
        values: the mask value of each class.
        ignored: the mask values of pixels to ignore.
        can_download: whether torchvision can download the data set.
        source: where the data set comes from, and its license.
        colors: the colors of the classes; by default PASCAL VOC's color map.
    """

    train: Mapping[str, Any]
    test: Mapping[str, Any]
    classes: tuple[str, ...]
    values: tuple[int, ...]
    source: str
    can_download: bool = True
    ignored: tuple[int, ...] = (IGNORED,)
    colors: tuple[Color, ...] = ()


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
        colors=tuple(each.color for each in _CITYSCAPES),
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
    """Open a data set of torchvision. Its images differ in size, so training requires the option `size`.

    Args:
        name: one of `PUBLISHED`.
        root: the folder that torchvision reads.
        download: whether torchvision may download files that are not in the folder.

    Raises:
        DataError: `root` is not set, or files in it are missing.
    """
    facts = PUBLISHED[name]
    if root is None:
        folder = f" To open the folder {name} instead, use ./{name}." if Path(name).is_dir() else ""
        raise DataError(f"{name} requires a root. Set root= to the folder that torchvision.datasets.{name} reads.{folder}")
    if download and not facts.can_download:
        raise DataError(
            f"torchvision cannot download {name}. Download it as the documentation of torchvision.datasets.{name} describes."
        )
    options = {"download": True} if download else {}
    train, test = (_open_dataset(name, root, **keywords, **options) for keywords in (facts.train, facts.test))
    validation_indexes = [index for index in range(len(train)) if index % VALIDATION_EVERY == VALIDATION_EVERY - 1]
    train_indexes = [index for index in range(len(train)) if index % VALIDATION_EVERY != VALIDATION_EVERY - 1]
    if not train_indexes or not validation_indexes or not len(test):
        raise DataError(f"{name} in {root} has too few images: {len(train)} for training, and {len(test)} for the test.")
    code = MaskCode(num_classes=len(facts.classes), values=facts.values, ignored=facts.ignored)
    return SegmentationData(
        name=name,
        classes=facts.classes,
        train=_Part(f"{name}, train split", train, train_indexes, code),
        validation=_Part(f"{name}, validation split", train, validation_indexes, code),
        test=_Part(f"{name}, test split", test, range(len(test)), code),
        colors=facts.colors,
        source=f"{facts.source}, from {root}",
    )


class _Part:
    """Some images of a data set, with masks converted to class indexes."""

    def __init__(self, label: str, dataset: Any, indexes: Sequence[int], code: MaskCode) -> None:
        self._label = label
        self._dataset = dataset
        self._indexes = indexes
        self._code = code

    def __len__(self) -> int:
        return len(self._indexes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:  # torchvision reads the files here; Pillow and SciPy raise these errors for broken files
            image, mask = self._dataset[self._indexes[index]]
            pixels, values = np.asarray(image.convert("RGB")), np.array(mask)
        except (OSError, SyntaxError, ValueError) as cause:
            raise DataError(f"{self._label}: image {index} or its mask cannot be read: {cause}") from cause
        try:
            return image_to_tensor(pixels), torch.from_numpy(self._code.to_indexes(Mask(pixels=values)))
        except DataError as cause:
            raise DataError(f"{self._label}: the mask of image {index}: {cause}") from cause


def _open_dataset(name: str, root: str, **keywords: Any) -> Any:
    dataset_class: Callable[..., Any] = getattr(datasets, name)
    try:
        return dataset_class(str(Path(root).expanduser()), **keywords)
    except (RuntimeError, OSError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise DataError(f"torchvision.datasets.{name} cannot read its files in {root}: {reason}") from cause
