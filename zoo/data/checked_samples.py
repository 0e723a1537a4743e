"""Check the samples of a user's own data set whenever they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.common.format_names import format_count, format_names
from zoo.data.pixel_statistics import measure_pixels, merge_statistics
from zoo.data.samples import Samples
from zoo.data.segmentation_data import SegmentationData
from zoo.data.value_ranges import note_on_samples
from zoo.errors import DataError

__all__ = ["check_on_read", "count_class_pixels", "measure_samples", "notes_on_samples"]


def check_on_read(data: SegmentationData) -> SegmentationData:
    """Return the same data, with a check of every sample whenever it is read.

    A user's data set can return a different sample each time, so checking each sample once is not enough.

    Raises:
        DataError: the training, validation or test split is empty. Reading an invalid sample from the returned data also raises
            a DataError.
    """
    for part, samples in data.parts():
        if not len(samples):
            raise DataError(f"{data.name}: the {part} split is empty. At least one sample is required.")
    parts: dict[str, Any] = {part: _CheckedSamples(data=data, part=part, samples=samples) for part, samples in data.parts()}
    fingerprint = data.fingerprint and replace(data.fingerprint, parts=())  # `SegmentationData` sets it to the new samples
    return replace(data, **parts, fingerprint=fingerprint)


def notes_on_samples(data: SegmentationData) -> list[str]:
    """Return notes for the user about the samples that were read so far.

    Args:
        data: data that `check_on_read` returned.

    Raises:
        DataError: all samples of the training, validation or test split were read, and every pixel in them is ignored.
    """
    notes = []
    for part, samples in data.parts():
        assert isinstance(samples, _CheckedSamples)
        if len(samples.indexes_read) == len(samples) and not samples.has_class:
            raise DataError(
                f"{data.name}, {part} split: every pixel of {format_count(len(samples), 'mask')} is ignored "
                f"({data.ignored}). At least one pixel must belong to a class."
            )
        if part == "train" and samples.indexes_read and (samples.low < 0 or samples.high > 1) and data.mean is None:
            notes.append(note_on_samples(samples.low, samples.high))
    return notes


def count_class_pixels(data: SegmentationData) -> tuple[int, ...]:
    """Return the number of pixels of each class in the training split. All masks are read if `train_pixels` is None."""
    if data.train_pixels is not None:
        return data.train_pixels
    counts = torch.zeros(len(data.classes), dtype=torch.int64)
    for index in range(len(data.train)):
        _, mask = data.train[index]
        counts += torch.bincount(mask[mask != data.ignored], minlength=len(data.classes))
    return tuple(counts.tolist())


def measure_samples(data: SegmentationData) -> SegmentationData:
    """Return the data with the mean and the standard deviation of all pixels of the training split.

    Args:
        data: data that `check_on_read` returned. Reading a sample again must return the same values.

    Raises:
        DataError: a channel has the same value in all pixels.
    """
    images = (data.train[index][0] for index in range(len(data.train)))
    channels = merge_statistics(measure_pixels(image.permute(1, 2, 0).cpu().numpy()) for image in images)
    if constant := [str(index) for index, channel in enumerate(channels) if channel.minimum == channel.maximum]:
        raise DataError(
            f"{data.name}: every pixel of the training images has the same value in channel {', '.join(constant)}, so std "
            "would be 0. Remove the channel, or set mean and std to numbers."
        )
    return replace(data, mean=tuple(each.mean for each in channels), std=tuple(each.std for each in channels))


@dataclass(slots=True, kw_only=True, eq=False)
class _CheckedSamples:
    """The samples of one split of the data, which are checked when they are read.

    Attributes:
        data: the data that the split belongs to.
        part: the name of the split.
        samples: the samples of the user's data set.
        indexes_read: the indexes of the samples read so far.
        has_class: whether any pixel read so far belongs to a class.
        low: the lowest image value read so far.
        high: the highest image value read so far.
    """

    data: SegmentationData
    part: str
    samples: Samples
    indexes_read: set[int] = field(default_factory=set)
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
                f"{self.data.name}, {self.part} split: sample {index} cannot be read: {failure}."
            ) from failure.__cause__
        if problem := _find_problem(sample, self.data):
            raise DataError(f"{self.data.name}, {self.part} split: {problem} (sample {index}).")
        image, mask = sample
        image, mask = image.detach().float(), mask.detach()
        if index not in self.indexes_read:  # training reads a sample in every epoch, but its values are examined only once
            self.indexes_read.add(index)
            self.has_class = self.has_class or bool((mask != self.data.ignored).any())
            self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))
        return image, mask


def _find_problem(sample: object, data: SegmentationData) -> str | None:
    """Return a description of what is wrong with a sample; None if the sample is valid."""
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        return f"a sample must be a pair of an image and its mask; found a {type(sample).__name__}"
    image, mask = sample
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        return f"an image must be a float tensor (channels, H, W) with values from 0 to 1; found {_describe(image)}"
    if len(image) != data.in_channels:
        return f"an image has {len(image)} channels, but in_channels is {data.in_channels}"
    if not isinstance(mask, Tensor) or mask.dtype != torch.int64 or mask.shape != image.shape[1:]:
        return f"a mask must be an int64 tensor (H, W) of its image's size; found {_describe(mask)} for {_describe(image)}"
    for tensor in (image, mask):
        if tensor.is_meta or tensor.layout != torch.strided:
            layout = "on the meta device" if tensor.is_meta else str(tensor.layout)
            return f"an image and its mask must be dense tensors with values; found {_describe(tensor)} ({layout})"
    if not image.numel():
        return f"an image must have pixels; found {_describe(image)}"
    if data.size and tuple(data.size) != tuple(image.shape[1:]):
        return f"an image has the size {tuple(image.shape[1:])}, but size is {data.size}; set size=None if sizes differ"
    # The minimum and the maximum are NaN if any value is NaN. Computing them needs no extra memory, whereas isfinite on the
    # whole image needs twice the memory of the image.
    if not torch.stack(image.float().aminmax()).isfinite().all():
        count = int((~torch.isfinite(image.float())).sum())
        return f"an image has {format_count(count, 'non-finite value')} (NaN or infinity)"
    num_classes = len(data.classes)
    is_unknown = ((mask < 0) | (mask >= num_classes)) & (mask != data.ignored)
    if is_unknown.any():
        unknown: list[int] = torch.unique(mask[is_unknown]).tolist()
        return (
            f"a mask has values that belong to no class: {format_names(unknown)}. The indexes of the {num_classes} classes are "
            f"0 to {num_classes - 1}, and {data.ignored} is ignored"
        )
    return None


def _describe(value: object) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
