"""Decide after each round of measurements whether a group of trials needs more rounds. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.messages import StopReason
from zoo.common.statistics import CONFIDENCE, estimate_median, estimate_ratio

__all__ = ["RoundsPlan", "plan_of", "rounds_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsPlan:
    """The rule that decides when the rounds of a group end. A round measures each trial of the group once.

    If a confidence interval is checked several times, and the rounds end as soon as it is narrow enough, then it misses the
    true value more often than its confidence level states. Therefore the intervals are checked only after `minimum` rounds,
    after each doubling and after `maximum` rounds. Each interval has a higher confidence level, 1 - 0.05 / number of checks
    (Bonferroni), so that the probability of missing the true value in at least one check is at most 5 %. When the time budget
    is spent, the rounds end without a check.

    Attributes:
        minimum: the smallest number of rounds.
        maximum: the largest number of rounds.
        target: how narrow the intervals must become. The rounds end if half the width of every interval, divided by
            the median that the interval is for, is at most `target`. With None, exactly `maximum` rounds are measured.
        budget: the seconds after which the rounds end, provided that `minimum` rounds are done; ignored without a `target`.
    """

    minimum: int
    maximum: int
    target: float | None
    budget: float

    def __post_init__(self) -> None:
        if not all(type(count) is int and count >= 1 for count in (self.minimum, self.maximum)):
            raise ValueError(
                f"rounds: min and max must be whole numbers of at least 1; found min {self.minimum!r:.80} and max "
                f"{self.maximum!r:.80}"
            )
        if self.target is not None and not isinstance(self.target, float | int):
            raise TypeError(f"rounds: target must be a number; found {self.target!r:.80}")

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of rounds after which the intervals are checked; without a `target`, only `maximum`."""
        if self.target is None:
            return (self.maximum,)
        counts = []
        count = self.minimum
        while count < self.maximum:
            counts.append(count)
            count *= 2
        return (*counts, self.maximum)

    @property
    def confidence(self) -> float:
        """The confidence level of each interval. All checks together then have a confidence level of at least 95 %."""
        return 1 - (1 - CONFIDENCE) / len(self.looks)

    def stop(
        self, samples: Mapping[str, Sequence[float]], baseline: str | None, *, rounds: int, seconds: float
    ) -> StopReason | None:
        """Return the reason to stop now; None to continue with another round.

        Args:
            samples: a mapping from the key of each trial to its seconds per call in each round. Trials that failed are left
                out.
            baseline: the key of the trial that the other trials are compared with. If `baseline` is None or has no samples, the
                intervals of the median times are checked instead of the intervals of the ratios to the baseline.
            rounds: the number of rounds that are done.
            seconds: the time that these rounds took.
        """
        if rounds >= self.maximum:
            if self.target is None:
                return "fixed"
            return "precise" if self._is_precise(samples, baseline) else "limit"
        if self.target is not None and rounds in self.looks and self._is_precise(samples, baseline):
            return "precise"
        if self.target is not None and rounds >= self.minimum and seconds >= self.budget:
            return "budget"
        return None

    def _is_precise(self, samples: Mapping[str, Sequence[float]], baseline: str | None) -> bool:
        assert self.target is not None
        base = samples.get(baseline) if baseline else None
        estimates = (
            estimate_ratio(taken, base, self.confidence) if base else estimate_median(taken, self.confidence)
            for key, taken in samples.items()
            if key != baseline or base is None
        )
        return all(estimate.precision <= self.target for estimate in estimates)


def rounds_plan(config: BenchConfig) -> RoundsPlan:
    """Return the rule that decides when the rounds of a run with this configuration end."""
    return plan_of(config.model_dump(mode="json"))


def plan_of(config: Mapping[str, Any]) -> RoundsPlan:
    """Return what `rounds_plan` returns, but for a configuration in the form of a dictionary, as it is in the results store."""
    rounds, budget = config["rounds"], config.get("budget", 0.0)
    if isinstance(rounds, Mapping):
        return RoundsPlan(minimum=rounds["min"], maximum=rounds["max"], target=rounds["target"], budget=budget)
    return RoundsPlan(minimum=rounds, maximum=rounds, target=None, budget=budget)
