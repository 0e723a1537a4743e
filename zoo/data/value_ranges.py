"""Choose which pixel values become 0 and 1, and write notes on the choice. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zoo.common.format_names import format_count
from zoo.data.pixel_statistics import BandStatistics, merge_statistics
from zoo.errors import DataError

__all__ = [
    "Files",
    "ValueRange",
    "choose_value_range",
    "dtype_range",
    "format_range",
    "note_on_given_range",
    "note_on_samples",
    "spread_range",
]

ValueRange: TypeAlias = tuple[tuple[float, float], ...]
"""The pixel values (low, high) of each band that become 0 and 1."""
Files: TypeAlias = Mapping[str, Sequence[Sequence[BandStatistics]]]
"""A mapping from each dtype to the files of this dtype: for each file, the statistics of each band."""
SMALL_SHARE = 0.25
"""A range is mostly empty if the pixels use less than this share of it."""
ALIKE_SHARE = 0.5
"""Ranges are alike if each spans at least this share of the range that contains all of them."""
DIGITS = 6
"""The number of significant digits of a measured range."""
FAR = 2.0
"""The user gets a note on a range that scales pixels to values whose magnitude is at least this number."""


def dtype_range(dtype: str | np.dtype[Any]) -> tuple[float, float] | None:
    """Return the lowest and the highest value of an integer or boolean dtype; None for other dtypes."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return 0.0, 1.0
    if kind not in "iu":
        return None
    limits = np.iinfo(np.dtype(dtype))
    return float(limits.min), float(limits.max)


def spread_range(value_range: Sequence[float] | Sequence[Sequence[float]], num_bands: int) -> ValueRange:
    """Return one pair for each band. The user's value is a single pair for all bands, or a list of pairs.

    Raises:
        DataError: there are more or fewer pairs than bands.
    """
    pairs: Any = value_range if isinstance(value_range[0], Sequence) else [value_range] * num_bands
    if len(pairs) != num_bands:
        raise DataError(
            f"value_range has {format_count(len(pairs), 'pair')}, but the images have {format_count(num_bands, 'band')}. Set "
            "one pair [low, high] for all bands, or one pair for each band"
        )
    return tuple((float(low), float(high)) for low, high in pairs)


def choose_value_range(train: Files, others: Files) -> tuple[ValueRange | None, list[str]]:
    """Return the range that images are scaled by, and notes on it.

    By default, the range is None: integers are scaled by the range of their dtype, and floats are not scaled. If that range (0
    to 1 for floats) is mostly empty (see `SMALL_SHARE`), or floats are outside 0 to 1, the range is measured. If the ranges of
    the bands are alike (see `ALIKE_SHARE`), the result is one range for all bands together, and otherwise one range for each
    band.

    Args:
        train: the statistics of the files in the training split, whose range is measured.
        others: the statistics of the files in the other splits. Files whose dtype occurs in the training split
            are ignored.

    Raises:
        DataError: files differ in their dtypes, and their values have no common unit.
    """
    files = {**others, **train}
    statistics = {dtype: merge_statistics(each) for dtype, each in files.items()}
    reasons = {dtype: reason for dtype, bands in statistics.items() if (reason := _find_reason(dtype, bands))}
    if not reasons:
        notes = [note for dtype, bands in statistics.items() if (note := _note_on_kept_range(dtype, bands))]
        if len(files) > 1:
            notes.append(f"images have different dtypes ({', '.join(files)}), each scaled by the range of its own dtype")
        return None, notes
    if len(files) > 1:
        _check_common_units(statistics)
    bands = merge_statistics([each for own in train.values() for each in own])
    varying = [_ends(band) for band in bands if band.minimum < band.maximum]
    if not varying:
        return None, [
            f"{next(iter(reasons.values()))}. In every band, all pixels have the same value, so no range can be measured. Set "
            "value_range to the lowest and the highest possible value"
        ]
    whole = _join(varying)
    if _are_alike(varying):
        value_range: ValueRange = (_round(*whole),) * len(bands)
    else:
        value_range = tuple(_round(*(_ends(band) if band.minimum < band.maximum else whole)) for band in bands)
    notes = [
        f"{'; '.join(reasons.values())}. Images are therefore scaled by the range of the pixels in the training split, without "
        f"outliers: {_describe(value_range)}. Values outside it are not clipped. To set the range yourself: value_range: "
        f"{format_range(value_range)}"
    ]
    for index, band in enumerate(bands, start=1):
        if band.minimum == band.maximum:
            notes.append(
                f"band {index} has the value {band.minimum:g} in every pixel of the training split, so a model learns nothing "
                "from it. Check the band, or leave it out of the files"
            )
    return value_range, notes


def note_on_given_range(value_range: ValueRange, bands: Sequence[BandStatistics]) -> list[str]:
    """Return a list with a note if the pixels fill only a small part of a user's range, or lie far outside it; [] otherwise."""
    scaled = [band.scale(*pair) for band, pair in zip(bands, value_range, strict=True)]
    low, high = _join([_ends(band) for band in scaled])
    if -FAR < low < 1 and 0 < high < FAR and high - low >= SMALL_SHARE:
        return []
    return [
        f"value_range: {format_range(value_range)} scales the pixels of the training split to values from {low:.3g} to "
        f"{high:.3g}, but a model learns best from 0 to 1. The range of the pixels is {_describe(tuple(map(_ends, bands)))}"
    ]


def note_on_samples(low: float, high: float) -> str:
    """Return the note for a user whose own samples have values outside 0 to 1."""
    return (
        f"images have float32 values from {low:g} to {high:g}, which are not scaled. Pretrained weights expect 0 to 1. Scale "
        "the samples, or set mean= and std= of SegmentationData on the scale of the samples, which replace the normalization "
        'of the weights ("auto" measures both)'
    )


def format_range(value_range: ValueRange) -> str:
    """Return a range as text for a YAML file: one pair if all bands have the same range."""
    pairs = [f"[{low:.17g}, {high:.17g}]" if not _is_short(low, high) else f"[{low:g}, {high:g}]" for low, high in value_range]
    return pairs[0] if len(set(pairs)) == 1 else f"[{', '.join(pairs)}]"


def _is_short(*numbers: float) -> bool:
    return all(float(f"{number:g}") == number for number in numbers)


def _describe(value_range: ValueRange) -> str:
    pairs = [f"{low:g} to {high:g}" for low, high in value_range]
    return pairs[0] if len(set(pairs)) == 1 else ", ".join(f"band {index} {pair}" for index, pair in enumerate(pairs, 1))


def _find_reason(dtype: str, bands: Sequence[BandStatistics]) -> str | None:
    """Return why the default scaling does not suit the images of a dtype; None if it does."""
    low, high = _join([_ends(band) for band in bands])
    text = f"images have {dtype} values from {min(band.minimum for band in bands):g} to {max(band.maximum for band in bands):g}"
    whole = dtype_range(dtype)
    if whole is None:
        if low < 0 or high > 1:
            return f"{text}, but pretrained weights expect 0 to 1"
        return f"{text}, so most of 0 to 1 is empty" if 0 < high - low < SMALL_SHARE else None
    bottom, top = whole
    share = (high - min(low, 0)) / (top - bottom)
    if share < SMALL_SHARE:
        return f"{text}, so most of the range of the dtype ({bottom:g} to {top:g}) is empty"
    if bottom < 0 <= low:
        return f"{text}, so half of the range of the dtype ({bottom:g} to {top:g}) is empty"
    return None


def _note_on_kept_range(dtype: str, bands: Sequence[BandStatistics]) -> str | None:
    """Return a note if a few floats are outside 0 to 1, or if bands of more than 8 bits are almost black; None otherwise."""
    whole = dtype_range(dtype)
    if whole is None:
        low, high = min(band.minimum for band in bands), max(band.maximum for band in bands)
        if low >= 0 and high <= 1:
            return None
        return f"images have {dtype} values from {low:g} to {high:g}, which are not scaled, since almost all are in 0 to 1"
    bottom, top = whole
    dark = [
        str(index)
        for index, band in enumerate(bands, start=1)
        if (band.high - bottom) / (top - bottom) < SMALL_SHARE and band.minimum < band.maximum
    ]
    if np.dtype(dtype).itemsize == 1 or not dark:
        return None
    return (
        f"images have {dtype} values, scaled by the range of the dtype ({bottom:g} to {top:g}), but most of that range is "
        f"empty in band {', '.join(dark)}. If this is not intended, set value_range to one pair for each band"
    )


def _check_common_units(statistics: Mapping[str, Sequence[BandStatistics]]) -> None:
    """Raise a DataError if the ranges of files of several dtypes are not alike."""
    ranges = {dtype: _join([_ends(band) for band in bands]) for dtype, bands in statistics.items()}
    if not _are_alike(list(ranges.values())):
        found = ", ".join(f"{dtype} from {low:g} to {high:g}" for dtype, (low, high) in ranges.items())
        raise DataError(
            f"Images have different dtypes, and their values have no common unit: {found}. Save all images in one dtype and "
            "unit, or set value_range to the range that all of them share."
        )


def _ends(band: BandStatistics) -> tuple[float, float]:
    """Return the low and the high end of a band; its extremes if almost all pixels have the same value."""
    return (band.low, band.high) if band.low < band.high else (band.minimum, band.maximum)


def _join(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _are_alike(ranges: Sequence[tuple[float, float]]) -> bool:
    low, high = _join(ranges)
    return all(own_high - own_low >= ALIKE_SHARE * (high - low) for own_low, own_high in ranges)


def _round(low: float, high: float) -> tuple[float, float]:
    """Return a range with ends rounded to `DIGITS` digits; the range itself if rounding would change it too much."""
    rounded = float(f"{low:.{DIGITS}g}"), float(f"{high:.{DIGITS}g}")
    is_close = abs(rounded[0] - low) + abs(rounded[1] - high) < 0.001 * (high - low)
    return rounded if is_close else (low, high)
