"""Decide between rounds, from the samples alone, whether a group needs more. Torch-free."""

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
    """When a group's rounds end.

    Looking at an interval several times and stopping at the first that is narrow enough is wrong more often than the
    interval's level says. So there are few looks, after `minimum` rounds and after each doubling, and each interval has the
    level at which all looks hold together (Bonferroni: 1 - 0.05 / looks). Stopping for time looks at no interval.

    Attributes:
        minimum: the least number of rounds.
        maximum: the most rounds.
        target: the precision at which a ratio is known well enough; None to do `maximum` rounds in any case.
        budget: seconds that the rounds may take, beyond `minimum`.
    """

    minimum: int
    maximum: int
    target: float | None
    budget: float

    def __post_init__(self) -> None:
        if not all(type(count) is int and count >= 1 for count in (self.minimum, self.maximum)):
            raise ValueError(f"rounds must be whole numbers of at least 1; found {self.minimum!r:.80} and {self.maximum!r:.80}")
        if self.target is not None and not isinstance(self.target, float | int):
            raise TypeError(f"the target of rounds must be a number; found {self.target!r:.80}")

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of rounds after which the intervals are looked at."""
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
        """The level of each interval at which all looks together hold with 95 %."""
        return 1 - (1 - CONFIDENCE) / len(self.looks)

    def stop(
        self, samples: Mapping[str, Sequence[float]], baseline: str | None, *, rounds: int, seconds: float
    ) -> StopReason | None:
        """Return the reason to stop now; None to go on.

        Args:
            samples: seconds per call, by trial, round by round; of the trials that still run.
            baseline: the trial that the others are compared with; without it, the medians' own intervals count.
            rounds: how many are done.
            seconds: what they took.
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
    """Return the plan of a configuration."""
    return plan_of(config.model_dump(mode="json"))


def plan_of(config: Mapping[str, Any]) -> RoundsPlan:
    """Return the plan of a configuration as the store keeps it."""
    rounds, budget = config["rounds"], config.get("budget", 0.0)
    if isinstance(rounds, Mapping):
        return RoundsPlan(minimum=rounds["min"], maximum=rounds["max"], target=rounds["target"], budget=budget)
    return RoundsPlan(minimum=rounds, maximum=rounds, target=None, budget=budget)
