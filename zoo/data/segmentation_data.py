"""Images with masks for training, validation and test, and the facts that all of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from operator import is_
from typing import TypeGuard

from torch.utils.data import IterableDataset

from zoo.data.class_colors import Color, class_colors
from zoo.data.fingerprint import Fingerprint
from zoo.data.samples import Samples
from zoo.errors import DataError

__all__ = ["IGNORED", "SegmentationData", "ignored_index"]

IGNORED = 255
"""The mask value of a pixel that training and scores ignore, as in PASCAL VOC and Cityscapes."""
IGNORED_OF_MANY = 65535
"""The same if there are so many classes that 255 is one of them."""


def ignored_index(num_classes: int) -> int:
    """Return the value of ignored pixels in a mask of class indexes."""
    return IGNORED if num_classes <= IGNORED else IGNORED_OF_MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationData:
    """Images with masks, split into parts for training, validation and test.

    Attributes:
        name: shown in tables.
        classes: the class names, in the order of the class indexes in the masks.
        train: the samples that the weights are trained on.
        validation: the samples that choose the best checkpoint and stop training early.
        test: the samples that the final scores are measured on.
        in_channels: the number of channels of an image.
        size: (H, W) of every image; None if images differ in size.
        ignored: the mask value of pixels that training and scores ignore.
        colors: a color for each class, to draw masks with.
        source: where the data come from, and their license.
        fingerprint: of the content of all files that were read; None if only the samples themselves identify the data, also
            after `dataclasses.replace` has replaced the samples of a part.
        train_pixels: the number of pixels of each class in the training part; None if they were not counted.
        notes: what a user should know before training on the data, one line each.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    in_channels: int = 3
    size: tuple[int, int] | None = None
    ignored: int = IGNORED
    colors: tuple[Color, ...] = field(default=())
    source: str = ""
    fingerprint: Fingerprint | None = None
    train_pixels: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, samples in self.parts():
            is_map_style = all(hasattr(samples, method) for method in ("__len__", "__getitem__"))
            if isinstance(samples, IterableDataset) or not is_map_style:
                raise DataError(
                    f"{self.name}, {part} part: a map-style data set with a length is required (a torch Dataset or a list); "
                    f"found a {type(samples).__name__}. Read its samples into a list."
                )
        names = self.classes
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise DataError(f"{self.name}: classes must be names, such as ('background', 'cell'); found {names!r}.")
        if len(names) < 2:
            raise DataError(f"{self.name}: at least two classes are required, including the background; found {names}.")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"{self.name}: classes: {repeated[0]} occurs more than once. Give each class a name of its own.")
        if 0 <= self.ignored < len(self.classes):
            raise DataError(f"{self.name}: {self.ignored} is both a class and the ignored value. Set ignored=-1.")
        if not self.colors:
            object.__setattr__(self, "colors", class_colors(len(self.classes)))
        if len(self.colors) != len(self.classes) or not all(map(_is_color, self.colors)):
            raise DataError(
                f"{self.name}: colors must have three integers from 0 to 255 for each of {len(self.classes)} classes, such as "
                f"(255, 0, 0); found {self.colors!r}."
            )
        if self.size is not None and not (_are_integers(self.size, 2) and min(self.size) > 0):
            raise DataError(
                f"{self.name}: size must be (height, width) of every image, or None if images differ in size; found "
                f"{self.size!r}."
            )
        if self.fingerprint is not None:
            # A fingerprint of other samples is dropped: `dataclasses.replace` keeps it while it replaces a part.
            parts = (self.train, self.validation, self.test)
            is_own = not self.fingerprint.parts or all(map(is_, self.fingerprint.parts, parts))
            object.__setattr__(self, "fingerprint", replace(self.fingerprint, parts=parts) if is_own else None)
            if not is_own:
                object.__setattr__(self, "train_pixels", None)

    def parts(self) -> Iterator[tuple[str, Samples]]:
        """Yield the name and the samples of each part."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))


def _is_color(value: object) -> bool:
    return _are_integers(value, 3) and all(0 <= part <= 255 for part in value)


def _are_integers(value: object, count: int) -> TypeGuard[Sequence[int]]:
    return isinstance(value, tuple | list) and len(value) == count and all(isinstance(each, Integral) for each in value)
