"""The results of measuring as plain frozen facts that a process can send, a store can keep and a table can read. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from pydantic import FiniteFloat

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
"""Why a group's rounds ended: the fixed number was done; every ratio's interval is narrow enough; the maximum was reached; the
time was spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticCost:
    """Facts that follow from a trial alone.

    Attributes:
        parameters: all of them, trained or not.
        flops: of one forward pass for one image; a multiply-add counts as two, and only convolutions, matrix products
            and attention count (what `torch.utils.flop_counter` knows).
        live_bytes: the most bytes that tensors hold at one time during a step: weights, input, activations, and in
            training gradients and the optimizer's state. An allocator may need more. None on an accelerator.
        step_flops: of the whole step, all images, in training the backward pass too.
        parts: how many parameters encoder, adapters, decoder and head have; None for a reference.
        plan: the pairing's plan as plain data; None for a reference.
    """

    parameters: int
    flops: int
    live_bytes: int | None
    step_flops: int | None = None
    parts: Mapping[str, int] | None = None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds per call, the mean of the calls of one slot.

    Attributes:
        seconds: wall-clock time.
        busy_seconds: time that the device worked: the process's CPU time on all threads, or the time between two events on an
            accelerator; None where that cannot be read.
    """

    seconds: float
    busy_seconds: float | None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("busy_seconds", self.busy_seconds or 0.0)):
            if not isinstance(value, float | int) or not math.isfinite(value) or value < 0:
                raise ValueError(f"the {name} of a sample must be a finite number of at least 0; found {value!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One slot of one round.

    Attributes:
        trial: the trial's key.
        slot: its position in the round's order.
        calls: how many calls were made in a row.
        seconds: as in `Timing`.
        busy_seconds: as in `Timing`.
    """

    trial: str
    slot: int
    calls: int
    seconds: float
    busy_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A process begins something that may never end.

    Attributes:
        trial: the trial's key; None between trials.
        doing: in words.
        hog: the trial that has made the process grow most so far, if that is much.
    """

    trial: str | None
    doing: str
    hog: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """The static costs of a trial."""

    trial: str
    cost: StaticCost


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownCost:
    """The static costs of a trial cannot be computed, though it may run on the device."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """A trial's cold start and memory: on the CPU in a fresh process, on an accelerator in its group's process.

    Attributes:
        trial: the trial's key.
        batch: images per call: the trial's own batch, or a smaller one where that ran out of memory.
        build_seconds: making the model and moving it to the device; its modules were imported before, and an
            accelerator's libraries were loaded.
        first_seconds: the first call; with `torch.compile` the compilation is in it.
        seconds: a later call, the fastest of a few.
        rss_bytes: by how much the process's resident memory grew, from before the model was made; None for a process that
            it shares with other trials.
        allocated_bytes: the most that its tensors held on the accelerator at one time, by the allocator's counter.
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
        """Throughput of a later call."""
        return self.batch / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One complete round of a group: a sample of each trial, and how quiet the machine was meanwhile."""

    number: int
    samples: tuple[Sample, ...]
    conditions: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnd:
    """A group's last round is done; `rounds` says how many there are."""

    reason: StopReason
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that raised, ran out of memory, ended its process, or never returned."""

    trial: str
    kind: FailureKind
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The scores of a trial's model after one training.

    Attributes:
        trial: the trial's key.
        seed: of the weights and the order of the data.
        steps: of the optimizer.
        seconds: that training and testing took.
        classes: of the data, by name.
        scores: `zoo.training.scores.Scores` as plain data.
    """

    trial: str
    seed: int
    steps: int
    seconds: float
    classes: tuple[str, ...]
    scores: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRate:
    """The best rate of one large kernel on the device.

    Attributes:
        flops_per_second: of the kernel's nominal FLOPs, a multiply-add counted as two, as in `StaticCost.flops`.
    """

    kernel: str
    dtype: str
    flops_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnvironment:
    """The environment of a job that runs on another machine than the one that started the benchmark."""

    environment: Mapping[str, Any]


Message: TypeAlias = (
    Activity | TrialCost | UnknownCost | ColdStart | Round | GroupEnd | Failure | TrainingResult | KernelRate | JobEnvironment
)

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def message_to(message: Message) -> dict[str, Any]:
    """Return a message as plain data."""
    return {"type": type(message).__name__, **asdict(message)}


def message_from(data: Mapping[str, Any]) -> Message:
    """Return the message from the plain data that `message_to` returned."""
    facts = dict(data)
    kind = _TYPES[facts.pop("type")]
    if kind is TrialCost:
        facts["cost"] = StaticCost(**facts["cost"])
    if kind is Round:
        facts["samples"] = tuple(Sample(**sample) for sample in facts["samples"])
    if kind is TrainingResult:
        facts["classes"] = tuple(facts["classes"])
    message: Message = kind(**{field.name: facts[field.name] for field in fields(kind)})
    return message
