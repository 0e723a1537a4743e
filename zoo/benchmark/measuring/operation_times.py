"""Time each operation of a trial, and its whole step."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from zoo.benchmark.measuring.clock import calls_to_fill_a_slot, time_calls
from zoo.benchmark.measuring.failures import failure_of
from zoo.benchmark.measuring.operations import OperationTimer
from zoo.benchmark.measuring.steps import build_subject, make_step
from zoo.benchmark.messages import Activity, Message
from zoo.benchmark.operation import OperationTime, OperationTimes
from zoo.benchmark.trial import Trial
from zoo.common.foreign_code import no_exits

__all__ = ["time_operations"]

TIMED_STEPS = 2
"""The number of steps whose operations are timed."""
SLOTS = 2
"""The number of times that the whole step is timed. Each time, it is called until a slot of the clock is full."""


def time_operations(trial: Trial, device: torch.device, seed: int) -> Iterator[Message]:
    """Build the model of a trial, time its operations and its step, and yield `OperationTimes`, or a `Failure`."""
    try:
        yield Activity(trial=trial.key, doing="building")
        torch.manual_seed(seed)
        step = make_step(build_subject(trial), trial, device)
        yield Activity(trial=trial.key, doing="first call")
        time_calls(step, 1, device)
        timer = OperationTimer(device)
        for _ in range(TIMED_STEPS):
            yield Activity(trial=trial.key, doing="timing operations")
            with no_exits("A call of the model"), timer:
                step()
        calls = calls_to_fill_a_slot(step, device)
        seconds = []
        for _ in range(SLOTS):
            yield Activity(trial=trial.key, doing="timing steps")
            seconds.append(time_calls(step, calls, device).seconds)
    except Exception as cause:  # noqa: BLE001 - any exception of a plugin's model is reported as the trial's failure
        yield failure_of(trial, cause)
        return
    operations = (
        OperationTime(operation=operation, calls=round(len(times) / TIMED_STEPS), seconds=statistics.median(times))
        for operation, times in timer.seconds.items()
    )
    yield OperationTimes(trial=trial.key, seconds=statistics.median(seconds), operations=tuple(operations))
