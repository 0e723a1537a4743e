"""Time each operation of several trials, and their whole steps, in interleaved rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from zoo.benchmark.measuring.clock import calls_to_fill_a_slot, time_calls
from zoo.benchmark.measuring.failures import failure_of
from zoo.benchmark.measuring.operations import OperationTimer
from zoo.benchmark.measuring.steps import Step, build_subject, make_step
from zoo.benchmark.messages import Activity, Message
from zoo.benchmark.operation import OperationTime, OperationTimes
from zoo.benchmark.trial import Trial
from zoo.common.foreign_code import no_exits

__all__ = ["time_operations"]

FEWEST_ROUNDS, MOST_ROUNDS = 2, 7
ROUNDS_SECONDS = 0.6
"""How long all rounds of one trial take together, if it has more than the fewest rounds."""


@dataclass(kw_only=True)
class _Timed:
    """A trial whose model is built, and its times so far.

    Attributes:
        trial: the trial.
        step: one call of its model.
        calls: how often the step is called to time it.
        rounds: the number of its rounds.
        timer: the times of its operations.
        seconds: the seconds of its step, one number for each round.
    """

    trial: Trial
    step: Step
    calls: int
    rounds: int
    timer: OperationTimer
    seconds: list[float] = field(default_factory=list)

    def time_round(self) -> None:
        """Time the operations of a step and, by itself, the whole step."""
        with no_exits("A call of the model"), self.timer:
            self.step()
        self.seconds.append(time_calls(self.step, self.calls, self.timer.device).seconds)

    def result(self) -> OperationTimes:
        """Return the medians of the times."""
        operations = (
            OperationTime(operation=operation, calls=round(len(times) / len(self.seconds)), seconds=statistics.median(times))
            for operation, times in self.timer.seconds.items()
        )
        return OperationTimes(trial=self.trial.key, seconds=statistics.median(self.seconds), operations=tuple(operations))


def time_operations(trials: Sequence[Trial], device: torch.device, seed: int) -> Iterator[Message]:
    """Build the models of the trials, time their operations and their steps, and yield their `OperationTimes` or `Failure`.

    Other programs on the machine, and the processor's clock, change within seconds. So the trials take turns: a round times
    each of them once.
    """
    ready: list[_Timed] = []
    for trial in trials:
        yield Activity(trial=trial.key, doing="building")
        try:
            ready.append(_build(trial, device, seed))
        except Exception as cause:  # noqa: BLE001 - any exception of a plugin's model is reported as the trial's failure
            yield failure_of(trial, cause)
    for number in range(MOST_ROUNDS):
        for timed in [each for each in ready if number < each.rounds]:
            yield Activity(trial=timed.trial.key, doing="timing operations")
            try:
                timed.time_round()
            except Exception as cause:  # noqa: BLE001 - as above
                ready.remove(timed)
                yield failure_of(timed.trial, cause)
    for timed in ready:
        yield timed.result()


def _build(trial: Trial, device: torch.device, seed: int) -> _Timed:
    """Build the model of a trial, and call it until it is warm."""
    torch.manual_seed(seed)
    step = make_step(build_subject(trial), trial, device)
    time_calls(step, 1, device)
    seconds = time_calls(step, 1, device).seconds
    calls = calls_to_fill_a_slot(seconds)
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(ROUNDS_SECONDS / ((1 + calls) * seconds))))
    return _Timed(trial=trial, step=step, calls=calls, rounds=rounds, timer=OperationTimer(device))
