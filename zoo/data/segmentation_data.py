"""What is trained on and tested on: images with masks in three parts, and the facts that they share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from operator import is_
from typing import TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.data.fingerprint import Fingerprint
from zoo.data.samples import Samples
from zoo.data.value_ranges import range_notes
from zoo.errors import DataError

__all__ = [
    "IGNORED",
    "Colour",
    "SegmentationData",
    "checked_data",
    "class_colours",
    "ignored_index",
    "notes_on_read",
    "pixels_of",
]

Colour: TypeAlias = tuple[int, int, int]
IGNORED = 255
"""The mask's value of a pixel that is neither trained on nor counted, as in PASCAL VOC and Cityscapes."""
IGNORED_OF_MANY = 65535
"""The same where there are so many classes that 255 is one of them."""


def ignored_index(num_classes: int) -> int:
    """Return what stands in a mask of class indexes where a pixel is left out."""
    return IGNORED if num_classes <= IGNORED else IGNORED_OF_MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationData:
    """Images with masks, in parts for training, for choosing during training, and for the test after it.

    Attributes:
        name: what tables call it.
        classes: their names, in the order of the mask's indexes.
        train: what weights are learned from.
        validation: what stops training early and chooses the best checkpoint.
        test: what the result is measured on, once.
        in_channels: of the images.
        size: (H, W) of every image; None where they differ.
        ignored: the mask's value of pixels that are left out.
        colours: one a class, to draw masks with.
        source: where it comes from, and its licence.
        fingerprint: of the content of all files that were read; None where only the samples themselves tell it, also after
            `dataclasses.replace` has put other samples in a part.
        notes: what a person should know before training on it, a line each.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    in_channels: int = 3
    size: tuple[int, int] | None = None
    ignored: int = IGNORED
    colours: tuple[Colour, ...] = field(default=())
    source: str = ""
    fingerprint: Fingerprint | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, samples in self.parts():
            is_mapped = all(hasattr(samples, method) for method in ("__len__", "__getitem__"))
            if isinstance(samples, IterableDataset) or not is_mapped:
                raise DataError(
                    f"{self.name}, {name} part: a data set with a length is needed, whose samples are read by their numbers "
                    f"(a map-style torch Dataset, or a list); found a {type(samples).__name__}. Read its samples into a list."
                )
        names = self.classes
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise DataError(f"{self.name}: classes are names, such as ('background', 'cell'); found {names!r}.")
        if len(names) < 2:
            raise DataError(f"{self.name}: a mask has at least two classes, the background among them; found {names}.")
        if twice := [name for name, number in Counter(names).items() if number > 1]:
            raise DataError(f"{self.name}: classes: {twice[0]} is the name of several.")
        if 0 <= self.ignored < len(self.classes):
            raise DataError(f"{self.name}: {self.ignored} is both a class and the ignored value. Give ignored=-1.")
        if not self.colours:
            object.__setattr__(self, "colours", class_colours(len(self.classes)))
        if len(self.colours) != len(self.classes) or not all(map(_is_colour, self.colours)):
            raise DataError(
                f"{self.name}: colours are three whole numbers of 0 to 255 for each of {len(self.classes)} classes, such as "
                f"(255, 0, 0); found {self.colours!r}."
            )
        if self.size is not None and not (_are_whole(self.size, 2) and min(self.size) > 0):
            raise DataError(
                f"{self.name}: size is (height, width) of every image, or None where they differ; found {self.size!r}."
            )
        if self.fingerprint is not None:
            object.__setattr__(self, "fingerprint", self._own(self.fingerprint))

    def _own(self, fingerprint: Fingerprint) -> Fingerprint | None:
        """Return a fingerprint that stands for these parts; None if it was made of others."""
        parts = (self.train, self.validation, self.test)
        if not fingerprint.parts:
            return replace(fingerprint, parts=parts)
        return fingerprint if all(map(is_, fingerprint.parts, parts)) else None

    def parts(self) -> Iterator[tuple[str, Samples]]:
        """Yield each part's name and samples."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))


def checked_data(data: SegmentationData) -> SegmentationData:
    """Return the same data, each of whose samples is checked whenever it is read: also the later ones of a user's own data set.

    Raises:
        DataError: a part is empty. Reading a sample raises one if it is not what `Samples` says.
    """
    for name, samples in data.parts():
        if not len(samples):
            raise DataError(f"{data.name}, {name} part: it is empty.")
    train, validation, test = (_Checked(data=data, name=name, samples=samples) for name, samples in data.parts())
    fingerprint = data.fingerprint and replace(data.fingerprint, parts=())  # the checked samples are the same ones
    return replace(data, train=train, validation=validation, test=test, fingerprint=fingerprint)


def notes_on_read(data: SegmentationData) -> list[str]:
    """Return what a person should know of the samples that were read of data that `checked_data` returned.

    Raises:
        DataError: all samples of a part were read, and every pixel is left out.
    """
    notes = []
    for name, samples in data.parts():
        assert isinstance(samples, _Checked)
        if len(samples.read) == len(samples) and not samples.has_class:
            raise DataError(
                f"{data.name}, {name} part: every pixel of its {len(samples)} masks is left out ({data.ignored}), so that "
                "nothing can be learned or measured."
            )
        if name == "train" and samples.read and (samples.low < 0 or samples.high > 1):
            notes += range_notes({"float32": (samples.low, samples.high)})
    return notes


@dataclass(slots=True, kw_only=True, eq=False)
class _Checked:
    """One part of some data, each sample of which is checked as it is read.

    Attributes:
        data: that the part is of.
        name: of the part.
        samples: as they come.
        read: the indexes of those that were read.
        has_class: whether any pixel that was read has a class.
        low: the lowest value of the images that were read.
        high: the highest.
    """

    data: SegmentationData
    name: str
    samples: Samples
    read: set[int] = field(default_factory=set)
    has_class: bool = False
    low: float = math.inf
    high: float = -math.inf

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            with foreign_code():
                sample = self.samples[index]
        except ForeignError as failure:
            raise DataError(
                f"{self.data.name}, {self.name} part: sample {index} cannot be read: {failure}."
            ) from failure.__cause__
        if problem := self._problem(sample):
            raise DataError(f"{self.data.name}, {self.name} part: {problem} (sample {index}).")
        image, mask = sample
        image, mask = image.detach().float(), mask.detach()
        if index not in self.read:  # once: training reads each sample in every epoch
            self._note(index, image, mask)
        return image, mask

    def _note(self, index: int, image: Tensor, mask: Tensor) -> None:
        self.read.add(index)
        self.has_class = self.has_class or bool((mask != self.data.ignored).any())
        self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))

    def _problem(self, sample: object) -> str | None:
        """Return what is wrong with a sample, if anything is."""
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            return f"a sample is an image and its mask; found a {type(sample).__name__}"
        image, mask = sample
        told = _told_tensor(image), _told_tensor(mask)
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            return f"an image is a float tensor (channels, H, W) in 0 to 1; found {told[0]}"
        if len(image) != self.data.in_channels:
            return f"an image has {len(image)} channels, and in_channels is {self.data.in_channels}"
        if not isinstance(mask, Tensor) or mask.dtype != torch.int64 or mask.shape != image.shape[1:]:
            return f"a mask is an int64 tensor (H, W) of its image's size; found {told[1]} for {told[0]}"
        for tensor in (image, mask):
            if tensor.is_meta or tensor.layout != torch.strided:
                where = "on the meta device" if tensor.is_meta else str(tensor.layout)
                return f"an image and its mask are dense tensors with values; found {_told_tensor(tensor)} ({where})"
        if not image.numel():
            return f"an image has pixels; found {told[0]}"
        if self.data.size and tuple(self.data.size) != tuple(image.shape[1:]):
            return (
                f"an image has the size {tuple(image.shape[1:])}, and size is {self.data.size}; give size=None if they differ"
            )
        if count := int((~torch.isfinite(image.float())).sum()):
            return f"an image has {count} numbers that are not finite (NaN or infinity)"
        num_classes = len(self.data.classes)
        is_strange = ((mask < 0) | (mask >= num_classes)) & (mask != self.data.ignored)
        if is_strange.any():
            strange: list[int] = torch.unique(mask[is_strange]).tolist()
            return (
                f"a mask has {', '.join(map(str, strange[:5]))}, and there are {num_classes} classes, 0 to {num_classes - 1}; "
                f"{self.data.ignored} is left out"
            )
        return None


def _is_colour(value: object) -> bool:
    return _are_whole(value, 3) and all(0 <= part <= 255 for part in value)


def _are_whole(value: object, count: int) -> TypeGuard[Sequence[int]]:
    return isinstance(value, tuple | list) and len(value) == count and all(isinstance(each, Integral) for each in value)


def _told_tensor(value: object) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def class_colours(count: int) -> tuple[Colour, ...]:
    """Return colours that differ, black first: PASCAL VOC's, which spread an index's bits over the three channels."""

    def colour(index: int) -> Colour:
        red = green = blue = 0
        for shift in range(7, -1, -1):
            red |= (index & 1) << shift
            green |= (index >> 1 & 1) << shift
            blue |= (index >> 2 & 1) << shift
            index >>= 3
        return red, green, blue

    return tuple(map(colour, range(count)))


def pixels_of(array: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Return an image as it was read, (H, W) or (H, W, channels), as a float tensor (channels, H, W) on the device.

    Whole numbers are brought to 0 to 1 by the range of their type; floating-point ones are taken as they are.

    Raises:
        DataError: another shape, a type that is no number, or numbers that are not finite.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"an image is (H, W) or (H, W, channels); found the shape {array.shape}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8:  # most are; a fourth of the bytes go to the device
        pixels = torch.from_numpy(np.array(array)).to(device).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    if np.issubdtype(array.dtype, np.integer):
        whole = np.iinfo(array.dtype)
        scaled = (array.astype(np.float32) - min(whole.min, 0)) / (float(whole.max) - min(whole.min, 0))
    elif np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinity, which is refused
            scaled = array.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise DataError(
                "it holds numbers that are not finite (NaN or infinity); replace them, or name NaN as a GeoTIFF's nodata"
            )
    else:
        raise DataError(f"its pixels are {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).to(device)
