"""Estimate medians, ratios and differences with confidence intervals. This module does not import torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

__all__ = [
    "CONFIDENCE",
    "SCORE_TIE",
    "TIE",
    "Difference",
    "Estimate",
    "adjust_p_values",
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
    """The mean difference between the two scores of each pair.

    Attributes:
        mean: the mean.
        low: the lower end of its 95 % confidence interval.
        high: the upper end.
        p_value: the probability of a mean at least as far from 0, if the true difference were `SCORE_TIE`. If the difference
            is one of several, the probability is corrected for their number (`adjust_p_values`).
    """

    mean: float
    low: float
    high: float
    p_value: float

    @property
    def is_tie(self) -> bool:
        """Whether the difference is indistinguishable from 0, or too small to matter."""
        return self.p_value > 1 - CONFIDENCE

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def format(self, digits: int = 3) -> str:
        """Return the mean with its interval in brackets. A single pair of scores has no interval: return only the mean."""
        if math.isinf(self.low):
            return f"{self.mean:+.{digits}f}"
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def estimate_difference(differences: Sequence[float]) -> Difference:
    """Return the mean of paired differences with Student's t interval. For a single pair, the interval is infinite.

    The p-value is that of the two-sided t-test of differences of at most `SCORE_TIE` (a minimum-effect test; Murphy and Myors
    1999). It is at most 5 % if the whole interval lies outside -SCORE_TIE to SCORE_TIE.
    """
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Difference(mean=mean, low=-math.inf, high=math.inf, p_value=1.0)
    from scipy.stats import t

    freedom, error = len(differences) - 1, statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    beyond = abs(mean) - SCORE_TIE
    p_value = min(1.0, 2 * float(t.sf(beyond / error, freedom))) if error else float(beyond <= 0)
    return Difference(mean=mean, low=mean - half, high=mean + half, p_value=p_value)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, corrected for their number by the method of Holm (1979), in the same order.

    If all tests whose corrected value is at most 5 % are called significant, the probability that any of them is wrong is at
    most 5 %.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def estimate_median(samples: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median with the interval between two order statistics (the sign test's interval; Hollander and Wolfe 1973).

    The interval holds the true median at least as often as `confidence` states, whatever the distribution of the samples. With
    too few samples for this, such as five at 95 %, it is their full range.
    """
    ordered = sorted(samples)
    outside = max(0, _rank(len(ordered), confidence) - 1)
    return Estimate(median=statistics.median(ordered), low=ordered[outside], high=ordered[-1 - outside])


def estimate_ratio(samples: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median of the ratios of paired samples, with its interval.

    The two samples of a pair are from the same round, so a drift of the machine's speed affects both equally.
    """
    return estimate_median([sample / base for sample, base in zip(samples, baseline, strict=True)], confidence)


def estimate_quotient(samples: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return median(samples) / median(others) for positive samples, with an interval (Price and Bonett 2002).

    The samples are not paired with `others`. The variance of the logarithm of each median follows from the width of its
    interval. If either has too few samples for an interval, such as five at 95 %, the interval is
    [min(samples) / max(others), max(samples) / min(others)].
    """
    middle = statistics.median(samples) / statistics.median(others)
    if not (_rank(len(samples), confidence) and _rank(len(others), confidence)):
        return Estimate(median=middle, low=min(samples) / max(others), high=max(samples) / min(others))
    reach = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    half = reach * math.hypot(_log_error(samples, confidence), _log_error(others, confidence))
    return Estimate(median=middle, low=middle * math.exp(-half), high=middle * math.exp(half))


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


def _log_error(samples: Sequence[float], confidence: float) -> float:
    """Return the standard error of the logarithm of the median."""
    estimate, rank = estimate_median(samples, confidence), _rank(len(samples), confidence)
    covered = 1 - 2 * sum(math.comb(len(samples), below) for below in range(rank)) / 2 ** len(samples)
    reach = statistics.NormalDist().inv_cdf((1 + covered) / 2)
    return math.log(estimate.high / estimate.low) / (2 * reach)


@lru_cache(maxsize=1024)
def _rank(count: int, confidence: float) -> int:
    """Return the largest rank r so that the interval from the r-th smallest to the r-th largest of `count` samples is valid.

    The number of samples below the true median has a binomial distribution. The interval is valid if it holds the true median
    with at least the probability `confidence`. Return 0 if no interval is.
    """
    rank, below, limit = 0, 0, Fraction((1 - confidence) / 2) * 2**count
    while (below := below + math.comb(count, rank)) <= limit:
        rank += 1
    return rank
