"""Runs, groups and trials as the results store has them. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.benchmark.records import StaticCost

__all__ = ["StoredGroup", "StoredQuality", "StoredRun", "StoredTrial", "Taken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as the store has it."""

    id: int
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    started: str
    finished: str | None
    is_resumed: bool = False

    def __post_init__(self) -> None:
        for name in ("config", "environment"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"the {name} of run {self.id} is a {type(getattr(self, name)).__name__}, not a mapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one round took of a trial: seconds a call, by the clock and of the device."""

    seconds: float
    busy_seconds: float | None

    def __post_init__(self) -> None:
        for name in ("seconds", "busy_seconds"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"a sample's {name} is {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGroup:
    """A group as far as it is measured.

    Attributes:
        trials: keys, the baseline's and its control's among them.
        stopped: why its rounds ended; None while they go on.
        environment: where the rounds that count were measured; None before the first.
        place: the same as the store numbers it.
        samples: by trial's key and round.
        conditions: how quiet the machine was, round by round.
    """

    number: int
    trials: tuple[str, ...]
    stopped: str | None
    environment: dict[str, Any] | None
    place: int | None
    samples: Mapping[str, Mapping[int, Taken]]
    conditions: tuple[Mapping[str, float | None], ...]

    @property
    def rounds(self) -> int:
        """How many rounds are done."""
        return len(self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuality:
    """What one training came to: its result as plain data, or its error."""

    result: Mapping[str, Any] | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial with what is known of it beside its samples."""

    key: str
    facts: dict[str, Any]
    cost: StaticCost | None = None
    alone: Mapping[str, Any] | None = None
    smaller: Mapping[str, Any] | None = None
    failure: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
