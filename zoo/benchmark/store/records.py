"""Runs, groups, trials and trainings as the results store has them; all facts are validated as they are read. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from zoo.benchmark.messages import ColdStart, FailureKind, StaticCost, StopReason, Timing
from zoo.benchmark.trial import Trial

__all__ = ["StoredGroup", "StoredQuality", "StoredRun", "StoredTrial", "TrainingFacts", "read_facts"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFacts:
    """The scores of a model, as far as the table shows them."""

    miou: FiniteFloat
    iou: tuple[FiniteFloat | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The result of a training, as far as the table shows it; a floor has scores alone."""

    scores: ScoreFacts
    classes: tuple[str, ...] = ()
    steps: int = 0
    seconds: FiniteFloat = 0.0


def read_facts(kind: type[_T], text: object) -> _T:
    """Return the facts of a column's JSON, which must have exactly these types.

    Raises:
        ValueError: it is not JSON, or its types are others.
    """
    if not isinstance(text, str):
        raise ValueError(f"JSON must be text; found {text!r:.80}")
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
            raise TypeError(f"{name} must be text; found {getattr(owner, name)!r:.80}")


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
class StoredGroup:
    """A group with the rounds that are done.

    Attributes:
        trials: keys, the baseline's and its control's among them.
        stopped: why its rounds ended; None while they go on.
        environment: of the rounds that count; None before the first.
        environment_id: the same as the store numbers it.
        samples: by trial's key and round.
        conditions: how quiet the machine was, round by round.
    """

    number: int
    trials: tuple[str, ...]
    stopped: str | None
    environment: dict[str, Any] | None
    environment_id: int | None
    samples: Mapping[str, Mapping[int, Timing]]
    conditions: tuple[Mapping[str, float | None], ...]

    def __post_init__(self) -> None:
        if self.stopped not in (None, *get_args(StopReason)):
            raise ValueError(f"group {self.number} stopped for {self.stopped!r:.80}")

    @property
    def rounds(self) -> int:
        """How many rounds are done."""
        return len(self.conditions)

    def ratios(self, trial: str, baseline: str, fact: str = "seconds") -> list[float]:
        """Return a trial's times over the baseline's, of the rounds that measured both.

        Args:
            trial: its key.
            baseline: the key of the trial to compare with.
            fact: "seconds" or "busy_seconds"; rounds in which one of the two is unknown or zero are left out.
        """
        own, base = self.samples.get(trial, {}), self.samples.get(baseline, {})
        rounds = sorted(own.keys() & base.keys())
        pairs = [(getattr(own[number], fact), getattr(base[number], fact)) for number in rounds]
        return [time / base_time for time, base_time in pairs if time is not None and base_time]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuality:
    """One training's result, or its error."""

    result: TrainingFacts | None
    error: str | None

    def __post_init__(self) -> None:
        if self.error is not None:
            _check_text(self, "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial with all that is known of it except its samples.

    Attributes:
        smaller_batch: the cold start at a smaller batch, after the trial's own ran out of memory.
        failure: the kind of `error`.
    """

    key: str
    trial: Trial
    cost: StaticCost | None = None
    cold_start: ColdStart | None = None
    smaller_batch: ColdStart | None = None
    failure: FailureKind | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_text(self, "key", *([] if self.error is None else ["error"]))
        if self.failure not in (None, *get_args(FailureKind)):
            raise ValueError(f"failure must be one of {', '.join(get_args(FailureKind))}; found {self.failure!r:.80}")
