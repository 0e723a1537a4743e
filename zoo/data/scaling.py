"""Choose how the pixels of a folder are scaled and normalized, from the user's options and the statistics of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zoo.common.format_names import format_count
from zoo.data.pixel_statistics import merge_statistics
from zoo.data.value_ranges import Files, ValueRange, choose_value_range, dtype_range, note_on_given_range, spread_range
from zoo.errors import DataError, RegistrationError
from zoo.registry.specs import Preprocessing

__all__ = ["Scaling", "choose_scaling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The scaling and the normalization of pixels.

    Attributes:
        value_range, mean, std: as in `SegmentationData`.
        notes: notes for the user on the scaling and the normalization, one line each.
    """

    value_range: ValueRange | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


def choose_scaling(
    train: Files,
    others: Files,
    *,
    value_range: Literal["auto"] | Sequence[float] | Sequence[Sequence[float]] = "auto",
    mean: Literal["auto"] | Sequence[float] | None = None,
    std: Literal["auto"] | Sequence[float] | None = None,
) -> Scaling:
    """Return the scaling and the normalization for the images of a folder.

    Args:
        train: the statistics of the files in the training split.
        others: the statistics of the files in the other splits. Files whose dtype occurs in the training split
            are ignored.
        value_range: the user's option, which `data_from_report` describes.
        mean: the user's option, which `data_from_report` describes.
        std: the user's option, which `data_from_report` describes.

    Raises:
        DataError: the options do not fit the images.
    """
    files = {**others, **train}
    num_bands = len(next(iter(train.values()))[0])
    if value_range == "auto":
        chosen, notes = choose_value_range(train, others)
    else:
        chosen = spread_range(value_range, num_bands)
        notes = note_on_given_range(chosen, merge_statistics([bands for own in train.values() for bands in own]))
    if mean is None or std is None:
        return Scaling(value_range=chosen, notes=tuple(notes))
    ranges = {dtype: chosen or (dtype_range(dtype) or (0.0, 1.0),) * num_bands for dtype in files}
    shared = next(iter(ranges.values())) if chosen or len(files) == 1 else None
    if isinstance(mean, str) or isinstance(std, str):
        means, stds = _measure(train, ranges)
        if shared:
            notes.append(f"measured on the training split: {_format_in_pixels(means, stds, shared)}")
    else:
        means, stds = _convert(mean, std, shared, files)
    return Scaling(value_range=chosen, mean=means, std=stds, notes=tuple(notes))


def _measure(train: Files, ranges: Mapping[str, ValueRange]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each band over all pixels, after scaling."""
    scaled = [
        [band.scale(*pair) for band, pair in zip(bands, ranges[dtype], strict=True)]
        for dtype, own in train.items()
        for bands in own
    ]
    merged = merge_statistics(scaled)
    if constant := [str(index) for index, band in enumerate(merged, start=1) if band.minimum == band.maximum]:
        raise DataError(
            f"every pixel of the training images has the same value in band {', '.join(constant)}, so std would be 0. Leave "
            "the band out of the files, or set mean and std to numbers"
        )
    return tuple(band.mean for band in merged), tuple(band.std for band in merged)


def _convert(
    mean: Sequence[float], std: Sequence[float], shared: ValueRange | None, files: Files
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Convert a user's mean and standard deviation from the units of the pixels to the units of the samples."""
    if shared is None:
        raise DataError(
            f"images have different dtypes ({', '.join(files)}), each scaled by the range of its own dtype, so mean and std "
            'have no common unit. Set value_range, or set mean and std to "auto"'
        )
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != len(shared):
            raise DataError(
                f"{name} has {format_count(len(numbers), 'number')}, but the images have {format_count(len(shared), 'band')}. "
                "Set one number for each band"
            )
    means = tuple((each - low) / (high - low) for each, (low, high) in zip(mean, shared, strict=True))
    stds = tuple(each / (high - low) for each, (low, high) in zip(std, shared, strict=True))
    try:
        Preprocessing(mean=means, std=stds)
    except RegistrationError as cause:
        raise DataError(f"mean and std must be in the units of the pixels. After scaling by value_range: {cause}") from cause
    return means, stds


def _format_in_pixels(means: Sequence[float], stds: Sequence[float], value_range: ValueRange) -> str:
    """Return the mean and the standard deviation in the units of the pixels, as text for a YAML file."""
    own_means = (low + (high - low) * each for each, (low, high) in zip(means, value_range, strict=True))
    own_stds = ((high - low) * each for each, (low, high) in zip(stds, value_range, strict=True))
    texts = (", ".join(f"{each:.6g}" for each in numbers) for numbers in (own_means, own_stds))
    return "mean: [{}], std: [{}]".format(*texts)
