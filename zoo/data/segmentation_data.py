"""Segmentation data: images with masks for training, validation and test, and their properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from numbers import Integral, Real
from operator import is_
from typing import Literal, TypeGuard

from torch.utils.data import IterableDataset

from zoo.data.class_colors import Color, class_colors
from zoo.data.fingerprint import Fingerprint
from zoo.data.samples import Samples
from zoo.data.value_ranges import ValueRange
from zoo.errors import DataError, RegistrationError
from zoo.registry.specs import Preprocessing

__all__ = ["IGNORED", "SegmentationData", "ignored_index"]

IGNORED = 255
"""The mask value of a pixel that training and scores ignore, as in PASCAL VOC and Cityscapes."""
IGNORED_OF_MANY = 65535
"""The mask value of ignored pixels if 255 is the index of a class."""


def ignored_index(num_classes: int) -> int:
    """Return the value of ignored pixels in a mask of class indexes."""
    return IGNORED if num_classes <= IGNORED else IGNORED_OF_MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationData:
    """Images with masks, divided into splits for training, validation and test.

    Attributes:
        name: the name of the data, which is shown in tables.
        classes: the class names, in the order of the class indexes in the masks.
        train: the samples that the weights are trained on.
        validation: the samples whose scores decide which checkpoint is the best, and whether training stops early.
        test: the samples that the final scores are measured on.
        in_channels: the number of channels of an image.
        size: (H, W) of every image; None if images differ in size.
        ignored: the mask value of pixels that training and scores ignore.
        colors: a color for each class, to draw masks with.
        value_range: for each channel, the pixel values (low, high) in the files that become 0 and 1 in the samples. Images are
            scaled in the same way for prediction. With None, integers are scaled by the range of their dtype, and floats are
            not scaled. Samples that you pass yourself are not scaled; the range then only records how you have scaled them.
        mean: the mean of each channel, on the scale of the samples' values. With `std`, it replaces the normalization with
            which the weights of an encoder were trained. "auto" measures both on the training split when training begins. None
            uses the normalization of the weights.
        std: the standard deviation of each channel, in the same form as `mean`.
        source: where the data come from, and their license.
        fingerprint: the fingerprint of all files of a folder. It is None for other data, and after `dataclasses.replace` has
            replaced the samples of a split.
        train_pixels: the number of pixels of each class in the training split; None if they were not counted.
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
    value_range: ValueRange | None = None
    mean: tuple[float, ...] | Literal["auto"] | None = None
    std: tuple[float, ...] | Literal["auto"] | None = None
    source: str = ""
    fingerprint: Fingerprint | None = None
    train_pixels: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, samples in self.parts():
            is_map_style = all(hasattr(samples, method) for method in ("__len__", "__getitem__"))
            if isinstance(samples, IterableDataset) or not is_map_style:
                raise DataError(
                    f"{self.name}, {part} split: a map-style data set with a length is required (a torch Dataset or a list); "
                    f"found a {type(samples).__name__}. Read its samples into a list."
                )
        names = self.classes
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise DataError(f"{self.name}: classes must be names, such as ('background', 'cell'); found {names!r}.")
        if len(names) < 2:
            raise DataError(f"{self.name}: at least two classes are required, including the background; found {names}.")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"{self.name}: classes: {repeated[0]} occurs more than once. Give each class a different name.")
        if 0 <= self.ignored < len(self.classes):
            raise DataError(f"{self.name}: {self.ignored} is both the index of a class and the ignored value. Set ignored=-1.")
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
        self._check_pixels()
        if self.fingerprint is not None:
            # Drop a fingerprint that describes other samples: `dataclasses.replace` copies it even if it replaces a split.
            parts = (self.train, self.validation, self.test)
            is_own = not self.fingerprint.parts or all(map(is_, self.fingerprint.parts, parts))
            object.__setattr__(self, "fingerprint", replace(self.fingerprint, parts=parts) if is_own else None)
            if not is_own:
                object.__setattr__(self, "train_pixels", None)
        if self.fingerprint is not None and self.fingerprint.scans:
            read_with = self.fingerprint.reading.get("value_range")
            if (read_with or []) != [list(pair) for pair in self.value_range or ()]:
                raise DataError(
                    f"{self.name}: its files are scaled by the value_range {read_with}; found {self.value_range}. Set "
                    "value_range in zoo.open_data instead, so that training and prediction scale images in the same way."
                )

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The normalization of the samples by `mean` and `std`; None unless both are numbers."""
        if not isinstance(self.mean, tuple) or not isinstance(self.std, tuple):
            return None
        return Preprocessing(mean=self.mean, std=self.std, value_range=(0.0, 1.0))

    def _check_pixels(self) -> None:
        """Check `value_range`, `mean` and `std`, and convert lists and integers to tuples of floats."""
        if self.value_range is not None:
            is_list = isinstance(self.value_range, tuple | list) and len(self.value_range) == self.in_channels
            if not is_list or not all(_are_numbers(pair, 2) and 0 < pair[1] - pair[0] < inf for pair in self.value_range):
                raise DataError(
                    f"{self.name}: value_range must have {self.in_channels} pairs (low, high), one for each channel, or be "
                    f"None; found {self.value_range!r}."
                )
            object.__setattr__(self, "value_range", tuple((float(low), float(high)) for low, high in self.value_range))
        if (self.mean is None and self.std is None) or self.mean == self.std == "auto":
            return
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if not _are_numbers(numbers, self.in_channels):
                raise DataError(
                    f'{self.name}: mean and std must both have {self.in_channels} numbers, one for each channel, or be "auto", '
                    f"or be None; found {name}={numbers!r}."
                )
            object.__setattr__(self, name, tuple(map(float, numbers)))
        try:
            _ = self.preprocessing
        except RegistrationError as cause:
            raise DataError(f"{self.name}: mean and std must be on the scale of the samples' values. {cause}") from cause

    def parts(self) -> Iterator[tuple[str, Samples]]:
        """Yield the name and the samples of each split."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))


def _is_color(value: object) -> bool:
    return _are_integers(value, 3) and all(0 <= part <= 255 for part in value)


def _are_numbers(value: object, count: int) -> TypeGuard[Sequence[float]]:
    if not isinstance(value, tuple | list) or len(value) != count:
        return False
    return not any(isinstance(each, bool) for each in value) and all(
        isinstance(each, Real) and isfinite(each) for each in value
    )


def _are_integers(value: object, count: int) -> TypeGuard[Sequence[int]]:
    return isinstance(value, tuple | list) and len(value) == count and all(isinstance(each, Integral) for each in value)
