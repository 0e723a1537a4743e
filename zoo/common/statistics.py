"""Estimate medians, ratios and differences with confidence intervals. This module does not import torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = [
    "CONFIDENCE",
    "SCORE_TIE",
    "TIE",
    "Difference",
    "Estimate",
    "estimate_difference",
    "estimate_median",
    "estimate_quotient",
    "estimate_ratio",
    "outliers",
    "percentile_90",
]

CONFIDENCE = 0.95
TIE = (0.98, 1.02)
"""Ratios in this range are too close to 1 to matter. A ratio whose interval reaches into this range is a tie."""

SCORE_TIE = 0.01
"""The largest difference of scores (0 to 1) that is too small to matter. Such a difference could be reversed with
other data or another length of training."""

RESAMPLES = 1999
AT_ONCE = 4_000_000
"""The largest number of random ranks that are drawn at once. They take 32 MB of memory."""
SEED = 0
"""The seed of the bootstrap. It is fixed, so that the same samples always have the same interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median and its confidence interval, by default of 95 %."""

    median: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """Whether this estimate of a ratio cannot be distinguished from 1, or is too close to 1 to matter."""
        return self.low <= TIE[1] and self.high >= TIE[0]

    @property
    def precision(self) -> float:
        """Half the interval's width, as a share of the median."""
        return (self.high - self.low) / 2 / self.median

    def format(self, scale: float = 1.0, digits: int = 3) -> str:
        """Return the median with its interval in brackets, with each value multiplied by `scale`."""
        median, low, high = (f"{value * scale:.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{median} [{low}, {high}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean difference between the two scores of each pair, and the 95 % confidence interval of this mean."""

    mean: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """Whether the difference is indistinguishable from 0, or too small to matter."""
        return self.low <= SCORE_TIE and self.high >= -SCORE_TIE

    def format(self, digits: int = 3) -> str:
        """Return the mean with its interval in brackets. A single pair of scores has no interval: return only the mean."""
        if math.isinf(self.low):
            return f"{self.mean:+.{digits}f}"
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def estimate_difference(differences: Sequence[float]) -> Difference:
    """Return the mean of paired differences with Student's t interval. For a single pair, the interval is infinite."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Difference(mean=mean, low=-math.inf, high=math.inf)
    from scipy.stats import t

    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1))
    half = reach * statistics.stdev(differences) / math.sqrt(len(differences))
    return Difference(mean=mean, low=mean - half, high=mean + half)


def estimate_median(samples: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median with its bootstrap interval (percentile method; Efron and Tibshirani 1993, chapter 13).

    For fewer than six samples, the interval is their full range.
    """
    return _bootstrapped(tuple(samples), confidence)


def estimate_ratio(samples: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median of the ratios of paired samples, with its bootstrap interval.

    The two samples of a pair are from the same round, so a drift of the machine's speed affects both equally.
    """
    return estimate_median([sample / base for sample, base in zip(samples, baseline, strict=True)], confidence)


def estimate_quotient(samples: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return median(samples) / median(others) with a bootstrap interval.

    The samples are not paired with `others`, so each of the two is resampled independently. If either has fewer than six
    values, the interval is [min(samples) / max(others), max(samples) / min(others)].
    """
    return _quotient(tuple(samples), tuple(others), confidence)


def percentile_90(samples: Sequence[float]) -> float:
    """Return the 90th percentile of the samples."""
    import numpy as np

    return float(np.quantile(samples, 0.9))


def outliers(samples: Sequence[float]) -> int:
    """Return the number of samples that are more than three interquartile ranges beyond the quartiles (Tukey 1977)."""
    import numpy as np

    first, third = np.quantile(samples, [0.25, 0.75])
    reach = 3 * (third - first)
    return sum(not first - reach <= sample <= third + reach for sample in samples)


@lru_cache(maxsize=65536)
def _bootstrapped(samples: tuple[float, ...], confidence: float) -> Estimate:
    median = statistics.median(samples)
    if len(samples) < 6 or min(samples) == max(samples):
        return Estimate(median=median, low=min(samples), high=max(samples))
    low, high = _interval(_resampled_medians(samples, SEED), confidence)
    return Estimate(median=median, low=low, high=high)


@lru_cache(maxsize=65536)
def _quotient(samples: tuple[float, ...], others: tuple[float, ...], confidence: float) -> Estimate:
    middle = statistics.median(samples) / statistics.median(others)
    if min(len(samples), len(others)) < 6:
        return Estimate(median=middle, low=min(samples) / max(others), high=max(samples) / min(others))
    low, high = _interval(_resampled_medians(samples, SEED) / _resampled_medians(others, SEED + 1), confidence)
    return Estimate(median=middle, low=low, high=high)


def _interval(medians: Any, confidence: float) -> tuple[float, float]:
    """Return the confidence interval of bootstrapped medians, by the percentile method."""
    import numpy as np

    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled_medians(samples: Sequence[float], seed: int) -> Any:
    """Return the median of each of `RESAMPLES` resamples.

    The ranks of the two middle samples of a resample do not depend on the values of the samples. So the ranks are drawn only
    once for each number of samples. This is about 20 times as fast as resampling the values.
    """
    import numpy as np

    lower, upper = _middle_ranks(len(samples), seed)
    ordered = np.sort(np.asarray(samples))
    return (ordered[lower] + ordered[upper]) / 2


@lru_cache(maxsize=1024)
def _middle_ranks(count: int, seed: int) -> tuple[Any, Any]:
    """Return the ranks of the two middle samples of each resample of `count` sorted samples.

    If `count` is odd, there is one middle sample, and the two ranks are equal.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    middle = [(count - 1) // 2, count // 2]
    rows = max(1, AT_ONCE // count)
    parts = []
    for first in range(0, RESAMPLES, rows):
        drawn = generator.integers(count, size=(min(rows, RESAMPLES - first), count))
        parts.append(np.partition(drawn, middle, axis=1)[:, middle])
    ranks = np.concatenate(parts)
    return ranks[:, 0], ranks[:, 1]
