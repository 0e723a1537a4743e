"""The messages that a measuring process sends: progress and results as frozen dataclasses. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from pydantic import FiniteFloat

from zoo.benchmark.operation import OperationTime, OperationTimes

__all__ = [
    "Activity",
    "ColdStart",
    "Failure",
    "FailureKind",
    "GroupEnd",
    "JobEnvironment",
    "KernelRate",
    "Message",
    "Round",
    "Sample",
    "StaticCost",
    "StopReason",
    "Timing",
    "TrainingResult",
    "TrialCost",
    "UnknownCost",
    "message_from",
    "message_to",
]

FailureKind: TypeAlias = Literal["error", "out of memory", "crash", "hang"]
StopReason: TypeAlias = Literal["fixed", "precise", "limit", "budget"]
"""Why the rounds of a group of trials ended. "fixed": the configured number of rounds is done. "precise": the interval of every
ratio to the baseline is narrow enough. "limit": the maximum number of rounds is done, but not every interval is narrow enough.
"budget": the time budget is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticCost:
    """The costs of a trial that are computed and not measured.

    Attributes:
        parameters: the number of parameters, trained or not.
        flops: the FLOPs of one forward pass for one image. A multiply-add counts as two. Only the operations that
            `torch.utils.flop_counter` supports are counted: convolutions, matrix products and attention.
        live_bytes: the peak size of all live tensors during a step: weights, input and activations, and in training also
            gradients and the optimizer's state. An allocator may need more. None if the trial runs on an accelerator.
        step_flops: the FLOPs of the whole step for all images of the batch; in training, this includes the backward pass.
        parts: a mapping from "encoder", "adapters", "decoder" and "head" to their numbers of parameters; None for a reference
            (a model that is not a pairing).
        plan: the pairing's plan as a dictionary; None for a reference.
    """

    parameters: int
    flops: int
    live_bytes: int | None
    step_flops: int | None = None
    parts: Mapping[str, int] | None = None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The mean time per call of a trial in one round.

    Attributes:
        seconds: the wall-clock time.
        busy_seconds: the time during which the device worked. On the CPU, this is the CPU time of all threads of the process.
            On an accelerator, it is the time between two timing events that the accelerator records. None if this time cannot
            be read.
    """

    seconds: float
    busy_seconds: float | None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("busy_seconds", self.busy_seconds or 0.0)):
            if not isinstance(value, float | int) or not math.isfinite(value) or value < 0:
                raise ValueError(f"the {name} of a sample must be a finite number of at least 0; found {value!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The measurement of one trial in one round.

    Attributes:
        trial: the trial's key.
        slot: the trial's position in the order of the round.
        calls: the number of consecutive calls, over which the times are averaged.
        seconds: the mean wall-clock time per call, as in `Timing`.
        busy_seconds: the mean time per call during which the device worked, as in `Timing`.
    """

    trial: str
    slot: int
    calls: int
    seconds: float
    busy_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A report that a process is about to begin an action that may hang.

    Attributes:
        trial: the trial's key; None if the action belongs to no trial.
        doing: the action as text, such as "first call".
        hog: the key of the trial that has increased the process's memory most so far; None if the increase is small.
    """

    trial: str | None
    doing: str
    hog: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """The static costs of a trial, which are computed and not measured."""

    trial: str
    cost: StaticCost


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownCost:
    """The reason why the `StaticCost` of a trial cannot be computed. The trial may still run on the device."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """The time and memory that a trial takes to build its model and make the first calls.

    On the CPU, they are measured in a fresh process. On an accelerator, they are measured in the process that also measures the
    other trials of the group.

    Attributes:
        trial: the trial's key.
        batch: the number of images per call. This is the trial's own batch size, or a smaller one if memory ran out with the
            trial's own.
        build_seconds: the time to build the model and move it to the device. Importing modules and loading an accelerator's
            libraries are not included.
        first_seconds: the time of the first call. With `torch.compile`, it includes the compilation.
        seconds: the time of the fastest of a few later calls.
        rss_bytes: the peak resident memory of the process, minus its resident memory before the model was built; None if
            other trials share the process, or if the system does not report the peak.
        allocated_bytes: the peak size of the trial's tensors on the accelerator, as counted by its allocator; None if
            there is no such count, as on the CPU.
    """

    trial: str
    batch: int
    build_seconds: FiniteFloat
    first_seconds: FiniteFloat
    seconds: FiniteFloat
    rss_bytes: int | None = None
    allocated_bytes: int | None = None

    @property
    def images_per_second(self) -> float:
        """The throughput, computed from `seconds`, the time of the fastest later call."""
        return self.batch / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One complete round of a group: a sample of each trial that did not fail, and the state of the machine.

    Attributes:
        number: the number of the round, from 0.
        samples: the samples, in the order in which they were measured.
        conditions: the fields of `zoo.benchmark.measuring.conditions.Conditions`, and `seconds`, the duration of the round.
    """

    number: int
    samples: tuple[Sample, ...]
    conditions: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnd:
    """The end of a group's rounds, with the reason and the number of rounds."""

    reason: StopReason
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that raised an exception, ran out of memory, ended its process, or hung."""

    trial: str
    kind: FailureKind
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The scores of a trial's model after it was trained once.

    Attributes:
        trial: the trial's key.
        seed: the seed of the weights and of the order of the data.
        steps: the number of optimizer steps.
        seconds: the time of training and testing.
        classes: the names of the data's classes.
        scores: `zoo.training.scores.Scores` as a dictionary.
        validation: the mIoU on the validation images; None unless `QualityEntry.stop_after` is set.
    """

    trial: str
    seed: int
    steps: int
    seconds: float
    classes: tuple[str, ...]
    scores: Mapping[str, Any]
    validation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRate:
    """The highest rate at which the device ran one large kernel.

    Attributes:
        flops_per_second: the kernel's number of FLOPs, which follows from its shapes, divided by the time of a call in seconds.
            A multiply-add counts as two, as in `StaticCost.flops`.
    """

    kernel: str
    dtype: str
    flops_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnvironment:
    """The machine and the software that do a job (a part of a run). Sent only if the jobs run on several machines."""

    environment: Mapping[str, Any]


Message: TypeAlias = (
    Activity
    | TrialCost
    | UnknownCost
    | ColdStart
    | OperationTimes
    | Round
    | GroupEnd
    | Failure
    | TrainingResult
    | KernelRate
    | JobEnvironment
)

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def message_to(message: Message) -> dict[str, Any]:
    """Return a message as a JSON-serializable dictionary."""
    return {"type": type(message).__name__, **asdict(message)}


def message_from(data: Mapping[str, Any]) -> Message:
    """Return the message that `message_to` converted to a dictionary."""
    facts = dict(data)
    kind = _TYPES[facts.pop("type")]
    if kind is TrialCost:
        facts["cost"] = StaticCost(**facts["cost"])
    if kind is OperationTimes:
        facts["operations"] = tuple(map(OperationTime.from_dict, facts["operations"]))
    if kind is Round:
        facts["samples"] = tuple(Sample(**sample) for sample in facts["samples"])
    if kind is TrainingResult:
        facts["classes"] = tuple(facts["classes"])
    message: Message = kind(**{field.name: facts[field.name] for field in fields(kind)})
    return message
