"""Runs, groups and trials as the results store has them. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from zoo.benchmark.messages import FailureKind, StaticCost, StopReason

__all__ = [
    "AloneFacts",
    "EnvironmentFacts",
    "QualityFacts",
    "StoredGroup",
    "StoredQuality",
    "StoredRun",
    "StoredTrial",
    "Taken",
    "read_facts",
]

_T = TypeVar("_T")


class _Facts(BaseModel):
    """The types of what is read of a mapping, each where it is there; what else stands there is kept."""

    model_config = ConfigDict(extra="allow")


class EnvironmentFacts(_Facts):
    """Where something was measured, as far as it is read."""

    device: str = ""
    device_name: str = ""
    processor: str = ""
    cores: int = 0
    memory_gib: FiniteFloat = 0.0
    threads: int = 0
    versions: dict[str, str] = {}
    commit: str = ""


class AloneFacts(_Facts):
    """What a trial took alone."""

    trial: str = ""
    batch: int = 0
    build_seconds: FiniteFloat = 0.0
    first_seconds: FiniteFloat = 0.0
    seconds: FiniteFloat = 0.0
    rss_bytes: int | None = None
    allocated_bytes: int | None = None


class ScoreFacts(_Facts):
    """How good a model is, as far as it is read."""

    miou: FiniteFloat
    iou: list[FiniteFloat | None]


class QualityFacts(_Facts):
    """What a training came to, as far as it is read; a look-up has scores alone."""

    scores: ScoreFacts
    classes: list[str] = []
    steps: int = 0
    seconds: FiniteFloat = 0.0


def read_facts(kind: type[_T], text: object) -> _T:
    """Return what a column's JSON says, of just these types.

    Raises:
        ValueError: it is no JSON, or of other types.
    """
    if not isinstance(text, str):
        raise ValueError(f"JSON is text; found {text!r:.80}")
    try:
        return cast("_T", _adapter(cast("Any", kind)).validate_json(text, strict=True))
    except ValidationError as cause:
        first = cause.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _check_text(owner: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(owner, name), str):
            raise TypeError(f"{name} is text; found {getattr(owner, name)!r:.80}")


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
        _check_text(self, "name", "started", *([] if self.finished is None else ["finished"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one round took of a trial: seconds a call, by the clock and of the device."""

    seconds: float
    busy_seconds: float | None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("busy_seconds", self.busy_seconds or 0.0)):
            if not isinstance(value, float | int) or not math.isfinite(value) or value < 0:
                raise ValueError(f"a sample's {name} is {value!r:.80}")


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

    def __post_init__(self) -> None:
        if self.stopped not in (None, *get_args(StopReason)):
            raise ValueError(f"group {self.number} stopped for {self.stopped!r:.80}")

    @property
    def rounds(self) -> int:
        """How many rounds are done."""
        return len(self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuality:
    """What one training came to: its result as plain data, or its error."""

    result: Mapping[str, Any] | None
    error: str | None

    def __post_init__(self) -> None:
        if self.error is not None:
            _check_text(self, "error")


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

    def __post_init__(self) -> None:
        _check_text(self, "key", *([] if self.error is None else ["error"]))
        if self.failure not in (None, *get_args(FailureKind)):
            raise ValueError(f"failure is one of {', '.join(get_args(FailureKind))}; found {self.failure!r:.80}")
