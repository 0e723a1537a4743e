"""Measure the pixels of each band: extremes, robust ends, mean and standard deviation. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from typing import Any

import numpy as np

__all__ = ["BandStatistics", "measure_pixels", "merge_moments", "merge_statistics"]

PIXEL_SHARE = 0.005
"""The share of a file's pixels below its low end, and above its high end."""
FILE_SHARE = 0.01
"""The share of files whose low ends are below that of all files together, and likewise for the high ends."""
NUM_SAMPLED = 10_000
"""The robust ends of a large image are those of an evenly strided subset of at least this many pixels."""
NUM_AT_ONCE = 2**20
"""The number of pixels that are converted to float64 together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Statistics of the pixels of one band, in the units of the pixels.

    Attributes:
        count: the number of pixels.
        minimum, maximum: the extremes.
        low, high: the robust ends. Of one file, the 0.5 and the 99.5 percentile of its pixels; of several files, the first
            percentile of their low ends and the 99th of their high ends.
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
            raise ValueError(f"a band has at least one pixel; found {self.count!r:.200}")
        if not all(type(number) is float and math.isfinite(number) for number in numbers) or self.deviations < 0:
            raise ValueError(f"the statistics of a band must be finite floats; found {self!r:.200}")

    @property
    def std(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.deviations / self.count)

    def as_list(self) -> list[float]:
        """Return plain data."""
        return list(astuple(self))

    @classmethod
    def from_list(cls, numbers: Sequence[Any]) -> BandStatistics:
        """Return the statistics from the plain data of `as_list`."""
        return cls(**dict(zip(cls.__slots__, numbers, strict=True)))

    def scale(self, low: float, high: float) -> BandStatistics:
        """Return the statistics of the same pixels after `low` became 0 and `high` became 1."""
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
        block = np.array(array[top : top + rows].reshape(-1, num_bands).T, dtype=np.float64, order="C")  # a copy, always
        block_mean = block.mean(axis=1)
        block -= block_mean[:, None]
        moments = (block.shape[1], block_mean, np.einsum("bn,bn->b", block, block))
        count, mean, deviations = merge_moments((count, mean, deviations), moments)
    minimum, maximum = array.min(axis=(0, 1)), array.max(axis=(0, 1))
    columns = (minimum, maximum, low, high, mean, deviations)
    names = BandStatistics.__slots__[1:]
    return tuple(
        BandStatistics(count=count, **{name: float(column[band]) for name, column in zip(names, columns, strict=True)})
        for band in range(num_bands)
    )


def merge_statistics(files: Iterable[Sequence[BandStatistics]]) -> tuple[BandStatistics, ...]:
    """Return the statistics of each band over all pixels of several files, given those of each file."""
    return tuple(_merge_band(bands) for bands in zip(*files, strict=True))


def merge_moments(one: tuple[int, Any, Any], other: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    """Return the count, the mean and the sum of squared deviations of two sets of pixels together (Chan et al. 1979)."""
    count = one[0] + other[0]
    difference = other[1] - one[1]
    mean = one[1] + difference * (other[0] / count)
    return count, mean, one[2] + other[2] + difference * difference * (one[0] * other[0] / count)


def _merge_band(bands: Sequence[BandStatistics]) -> BandStatistics:
    count, mean, deviations = reduce(merge_moments, [(band.count, band.mean, band.deviations) for band in bands])
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
    """Return a low end that some of the sorted `lows` are below, and a high end that some of the sorted `highs` are above.

    Percentiles are not interpolated, so that a single outlier among three values or more is never part of the result.
    """
    last = len(lows) - 1
    if last < 2:
        return lows[0], highs[-1]
    return lows[math.ceil(share * last)], highs[math.floor((1 - share) * last)]
