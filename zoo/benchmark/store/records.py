"""The records of the results store: runs, groups, trials and training results, validated on reading. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from zoo.benchmark.messages import ColdStart, FailureKind, StaticCost, StopReason, Timing
from zoo.benchmark.operation import OperationTimes
from zoo.benchmark.trial import Trial

__all__ = ["StoredGroup", "StoredQuality", "StoredRun", "StoredTrial", "TrainingFacts", "read_facts"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFacts:
    """The scores that the table shows for a model."""

    miou: FiniteFloat
    iou: tuple[FiniteFloat | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """What the table shows about one training run of a model.

    A trivial baseline (which is not a neural network) has only `scores`. `validation` is the mIoU on the validation images, if
    `QualityEntry.stop_after` is set.
    """

    scores: ScoreFacts
    classes: tuple[str, ...] = ()
    steps: int = 0
    seconds: FiniteFloat = 0.0
    validation: FiniteFloat | None = None


def read_facts(kind: type[_T], text: object) -> _T:
    """Parse the JSON text in a column of the store into an object of type `kind`, without type conversions.

    Raises:
        ValueError: the text is not JSON, or a value does not have the type that `kind` declares.
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
    """A run in the store.

    Attributes:
        config: the run's configuration as a dictionary.
        environment: the environment of the machine that started the run.
        started: when the run started, in UTC and in the format ISO 8601.
        finished: when the run finished, in the same format; None if it is unfinished.
        is_resumed: whether `Store.start_run` returned an interrupted run, which is now continued.
    """

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
    """A group of trials that are measured together, and the finished rounds of this group.

    Attributes:
        number: the number of the group in its run.
        trials: the keys of the trials, including those of the baseline and its copy (the control).
        stopped: why the rounds ended, a `StopReason`; None if they have not ended.
        environment: the environment (machine and software) in which the rounds were measured; None before the first round.
        environment_id: the id of `environment` in the store.
        samples: the times as `{the trial's key: {the round's number: times}}`.
        conditions: the state of the machine in each round.
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
            raise ValueError(f"group {self.number} has an unknown reason for its end: {self.stopped!r:.80}")

    @property
    def rounds(self) -> int:
        """The number of finished rounds."""
        return len(self.conditions)

    def ratios(self, trial: str, baseline: str, fact: str = "seconds") -> list[float]:
        """Return a trial's times divided by the baseline's, one ratio for each round that measured both.

        Args:
            trial: the key of the trial.
            baseline: the key of the trial to compare with.
            fact: the time to divide: "seconds" or "busy_seconds". A round is left out if this time is unknown for the trial or
                the baseline, or if it is zero for the baseline.
        """
        own, base = self.samples.get(trial, {}), self.samples.get(baseline, {})
        rounds = sorted(own.keys() & base.keys())
        pairs = [(getattr(own[number], fact), getattr(base[number], fact)) for number in rounds]
        return [time / base_time for time, base_time in pairs if time is not None and base_time]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuality:
    """The result of training a model with one seed, or the error."""

    result: TrainingFacts | None
    error: str | None

    def __post_init__(self) -> None:
        if self.error is not None:
            _check_text(self, "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial in the store with all its results except the samples.

    Attributes:
        smaller_batch: the cold start with a smaller batch; None unless the trial's own batch ran out of memory.
        operation_times: the times of the operations; None unless the run is a calibration.
        failure: the kind of `error`; None if the trial did not fail.
        notes: remarks on how the trial was measured.
    """

    key: str
    trial: Trial
    cost: StaticCost | None = None
    cold_start: ColdStart | None = None
    smaller_batch: ColdStart | None = None
    operation_times: OperationTimes | None = None
    failure: FailureKind | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_text(self, "key", *([] if self.error is None else ["error"]))
        if self.failure not in (None, *get_args(FailureKind)):
            raise ValueError(f"failure must be one of {', '.join(get_args(FailureKind))}; found {self.failure!r:.80}")
