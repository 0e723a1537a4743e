"""A median with an interval that assumes nothing about how the samples are distributed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Estimate", "estimate_median", "estimate_ratio"]

CONFIDENCE = 0.95
TIE = (0.98, 1.02)
"""Ratios in between are no difference that a user would notice; an interval that reaches into it is a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median and the 95 % interval it lies in."""

    median: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """For a ratio: whether it cannot be told from 1."""
        return self.low <= TIE[1] and self.high >= TIE[0]


def estimate_median(samples: Sequence[float]) -> Estimate:
    """Return the median with its distribution-free interval between two order statistics.

    The rank k is the largest for which k samples below and k above still hold the median with 95 % probability
    (Conover 1999, Practical Nonparametric Statistics, 3.2); for 20 samples these are the 6th and the 15th. Fewer than
    six samples have no such interval, and their full range is given.
    """
    ordered = sorted(samples)
    count = len(ordered)
    rank, tail = 0, 0.5**count
    while tail <= (1 - CONFIDENCE) / 2 and rank < count // 2:
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    rank = max(rank, 1)
    return Estimate(median=statistics.median(ordered), low=ordered[rank - 1], high=ordered[count - rank])


def estimate_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Return the median of the ratios of samples taken in the same round, so that drift hits both alike."""
    return estimate_median([sample / base for sample, base in zip(samples, baseline, strict=True)])
