"""Measure the pixels of each band: extremes, percentiles, mean and standard deviation. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from typing import Any

import numpy as np

__all__ = ["BandStatistics", "measure_pixels", "merge_statistics"]

PIXEL_SHARE = 0.005
"""The share of a file's pixels that lie below its low end. The same share lies above its high end (see `BandStatistics`)."""
FILE_SHARE = 0.01
"""The share of files whose low end lies below the low end of all files together.

The same share of files has a high end above the high end of all files together.
"""
NUM_SAMPLED = 10_000
"""The low and the high end of a large image are computed from an evenly strided subset of at least this many pixels."""
NUM_AT_ONCE = 2**20
"""The number of values that are converted to float64 at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Statistics of the pixels of one band, in the units of the pixels.

    Attributes:
        count: the number of pixels.
        minimum, maximum: the lowest and the highest value.
        low, high: the robust ends, which leave out outliers. For one file, they are the 0.5 and the 99.5 percentile of its
            pixels. For several files, they are the 1st percentile of the low ends and the 99th percentile of the high ends.
        mean: the mean.
        deviations: the sum of the squared deviations from the mean.
    """

    count: int
    minimum: float
    maximum: float
    low: float
    high: float
    mean: float
    deviations: float

    def __post_init__(self) -> None:
        numbers = (self.minimum, self.low, self.high, self.maximum, self.mean, self.deviations)
        if type(self.count) is not int or self.count < 1:
            raise ValueError(f"a band's number of pixels must be a whole number of at least 1; found {self.count!r:.200}")
        if not all(type(number) is float and math.isfinite(number) for number in numbers) or self.deviations < 0:
            raise ValueError(f"the statistics of a band must be finite floats; found {self!r:.200}")

    @property
    def std(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.deviations / self.count)

    def as_list(self) -> list[float]:
        """Return the attributes as a list of numbers."""
        return list(astuple(self))

    @classmethod
    def from_list(cls, numbers: Sequence[Any]) -> BandStatistics:
        """Return the statistics from the result of `as_list`."""
        return cls(**dict(zip(cls.__slots__, numbers, strict=True)))

    def scale(self, low: float, high: float) -> BandStatistics:
        """Return the statistics of the pixels after linear scaling, by which `low` becomes 0 and `high` becomes 1."""
        span = high - low
        ends = ((end - low) / span for end in (self.minimum, self.maximum, self.low, self.high, self.mean))
        minimum, maximum, robust_low, robust_high, mean = ends
        return BandStatistics(
            count=self.count,
            minimum=minimum,
            maximum=maximum,
            low=robust_low,
            high=robust_high,
            mean=mean,
            deviations=self.deviations / span / span,
        )


def measure_pixels(array: np.ndarray) -> tuple[BandStatistics, ...]:
    """Return the statistics of each band of an image (H, W) or (H, W, bands) of finite numbers."""
    if array.ndim == 2:
        array = array[..., None]
    height, width, num_bands = array.shape
    step = max(1, int(math.sqrt(height * width / NUM_SAMPLED)))
    sample = np.sort(array[::step, ::step].reshape(-1, num_bands), axis=0)
    low, high = _robust_ends(sample, sample, PIXEL_SHARE)
    count, mean, deviations = 0, np.zeros(num_bands), np.zeros(num_bands)
    rows = max(1, NUM_AT_ONCE // (width * num_bands))
    for top in range(0, height, rows):
        block = np.array(array[top : top + rows].reshape(-1, num_bands).T, dtype=np.float64, order="C")  # always a copy
        block_mean = block.mean(axis=1)
        block -= block_mean[:, None]
        moments = (block.shape[1], block_mean, np.einsum("bn,bn->b", block, block))
        count, mean, deviations = _merge_moments((count, mean, deviations), moments)
    minimum, maximum = array.min(axis=(0, 1)), array.max(axis=(0, 1))
    columns = (minimum, maximum, low, high, mean, deviations)
    names = BandStatistics.__slots__[1:]
    return tuple(
        BandStatistics(count=count, **{name: float(column[band]) for name, column in zip(names, columns, strict=True)})
        for band in range(num_bands)
    )


def merge_statistics(files: Iterable[Sequence[BandStatistics]]) -> tuple[BandStatistics, ...]:
    """Return the statistics of each band over all pixels of several files, given the statistics of each file."""
    return tuple(_merge_band(bands) for bands in zip(*files, strict=True))


def _merge_moments(one: tuple[int, Any, Any], other: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    """Merge (count, mean, sum of squared deviations) of two sets of pixels (Chan et al. 1979)."""
    count = one[0] + other[0]
    difference = other[1] - one[1]
    mean = one[1] + difference * (other[0] / count)
    return count, mean, one[2] + other[2] + difference * difference * (one[0] * other[0] / count)


def _merge_band(bands: Sequence[BandStatistics]) -> BandStatistics:
    count, mean, deviations = reduce(_merge_moments, [(band.count, band.mean, band.deviations) for band in bands])
    lows, highs = np.sort([band.low for band in bands]), np.sort([band.high for band in bands])
    low, high = _robust_ends(lows, highs, FILE_SHARE)
    return BandStatistics(
        count=count,
        minimum=min(band.minimum for band in bands),
        maximum=max(band.maximum for band in bands),
        low=float(low),
        high=float(high),
        mean=mean,
        deviations=deviations,
    )


def _robust_ends(lows: np.ndarray, highs: np.ndarray, share: float) -> tuple[Any, Any]:
    """Return the quantile `share` of the sorted `lows`, and the quantile `1 - share` of the sorted `highs`.

    Quantiles are not interpolated, but rounded inward to a value of the data. A single outlier among three or more values is
    therefore never part of the result.
    """
    last = len(lows) - 1
    if last < 2:
        return lows[0], highs[-1]
    return lows[math.ceil(share * last)], highs[math.floor((1 - share) * last)]
