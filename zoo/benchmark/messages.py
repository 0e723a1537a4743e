"""What measuring gives, as plain frozen facts that a process can send, a store can keep and a table can read. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

__all__ = [
    "Alone",
    "Counted",
    "Failed",
    "FailureKind",
    "Message",
    "Placed",
    "Rated",
    "Round",
    "Sample",
    "StaticCost",
    "StopReason",
    "Stopped",
    "Trained",
    "Uncounted",
    "Working",
    "message_from",
    "message_to",
]

FailureKind: TypeAlias = Literal["error", "out of memory", "crash", "hang"]
StopReason: TypeAlias = Literal["fixed", "precise", "limit", "budget"]
"""Why a group's rounds ended: as many as asked for; every ratio's interval narrow enough; the most rounds; the time spent."""


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
        parts: how many parameters encoder, adapters, decoder and head have; None for what is no pairing.
        plan: the pairing's plan as plain data; None for what is no pairing.
    """

    parameters: int
    flops: int
    live_bytes: int | None
    step_flops: int | None = None
    parts: Mapping[str, int] | None = None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One slot of one round.

    Attributes:
        trial: the trial's key.
        slot: its place in the round's order.
        calls: how many calls it took.
        seconds: wall-clock time, the mean of the calls.
        busy_seconds: of the device, the mean of the calls: the process's CPU time on all threads, or the time between two
            events on an accelerator; None where that was not read.
    """

    trial: str
    slot: int
    calls: int
    seconds: float
    busy_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """A process begins something that may never end.

    Attributes:
        trial: what it works on; None between trials.
        doing: in words.
        hog: the trial that has made the process grow most so far, if that is much.
    """

    trial: str | None
    doing: str
    hog: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The static pass's outcome for a trial."""

    trial: str
    cost: StaticCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncounted:
    """A trial whose costs cannot be found here, though it may run on the device."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A trial's cold start and memory: on the CPU in a fresh process, on an accelerator in its group's process.

    Attributes:
        trial: the trial's key.
        batch: images a call; the trial's own, or fewer where that ran out of memory.
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
    build_seconds: float
    first_seconds: float
    seconds: float
    rss_bytes: int | None = None
    allocated_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a group, whole: what each trial took, and how quiet the machine was meanwhile."""

    number: int
    samples: tuple[Sample, ...]
    conditions: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A group's last round is done; `rounds` says how many there are."""

    reason: StopReason
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial that raised, ran out of memory, took its process with it, or never ended."""

    trial: str
    kind: FailureKind
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trial's model, trained once and tested.

    Attributes:
        trial: the trial's key.
        seed: that it was trained with.
        steps: of the optimizer.
        seconds: that training and testing took.
        classes: of the data, by name.
        scores: as plain data; `zoo.training.scores.Scores` says what they are.
    """

    trial: str
    seed: int
    steps: int
    seconds: float
    classes: tuple[str, ...]
    scores: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """How fast the device does one large kernel at best.

    Attributes:
        flops_per_second: of the kernel's nominal FLOPs, a multiply-add counted as two, as in `StaticCost.flops`.
    """

    kernel: str
    dtype: str
    flops_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a job is done, if that is another machine than the one that asked."""

    environment: Mapping[str, Any]


Message: TypeAlias = Working | Counted | Uncounted | Alone | Round | Stopped | Failed | Trained | Rated | Placed

_TYPES: dict[str, type[Any]] = {
    entry.__name__: entry for entry in (Working, Counted, Uncounted, Alone, Round, Stopped, Failed, Trained, Rated, Placed)
}


def message_to(message: Message) -> dict[str, Any]:
    """Return a message as plain data."""
    return {"type": type(message).__name__, **asdict(message)}


def message_from(data: Mapping[str, Any]) -> Message:
    """Return the message that `message_to` made plain."""
    facts = dict(data)
    kind = _TYPES[facts.pop("type")]
    if kind is Counted:
        facts["cost"] = StaticCost(**facts["cost"])
    if kind is Round:
        facts["samples"] = tuple(Sample(**sample) for sample in facts["samples"])
    if kind is Trained:
        facts["classes"] = tuple(facts["classes"])
    message: Message = kind(**{entry.name: facts[entry.name] for entry in fields(kind)})
    return message
