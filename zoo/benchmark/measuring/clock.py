"""Measure the wall-clock time of a slot (one or more calls in a row), and for how long the processor is busy during it.

The processor is the CPU or the accelerator.
"""

from __future__ import annotations

import math
import time

import torch

from zoo.benchmark.measuring.steps import Step
from zoo.benchmark.messages import Timing
from zoo.common.foreign_code import no_exits

__all__ = ["calls_to_fill_a_slot", "read_clock", "time_calls"]

SLOT_SECONDS = 0.01
"""The minimum duration of a slot, in seconds.

A step that takes less time is called several times in a row, so that the time to read the clock is negligible."""


def read_clock(device: torch.device) -> float:
    """Wait until the device has finished its work, and return the time in seconds."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@no_exits("A call of the model")
def time_calls(step: Step, calls: int, device: torch.device) -> Timing:
    """Call a step `calls` times in a row, and wait until the device has finished all calls.

    Returns:
        The mean wall-clock time and the mean busy time of a call. On the CPU, the busy time is the CPU time of all threads of
        this process. On an accelerator, it is the time between a timing event before the first call and one after the last,
        divided by `calls`; None if the events of this accelerator record no times.

    Raises:
        PluginError: the model's code tried to end the program.
        Exception: any other exception that a call raises.
    """
    if device.type == "cpu":
        began, busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            step()
        return Timing(seconds=(time.perf_counter() - began) / calls, busy_seconds=(time.process_time() - busy) / calls)
    first, last = _event(device), _event(device)
    began = read_clock(device)
    if first:
        first.record()
    for _ in range(calls):
        step()
    if last:
        last.record()
    seconds = (read_clock(device) - began) / calls
    return Timing(seconds=seconds, busy_seconds=first.elapsed_time(last) / 1000 / calls if first and last else None)


def calls_to_fill_a_slot(seconds: float) -> int:
    """Return the smallest number of calls that together take at least `SLOT_SECONDS` if each takes `seconds`."""
    return max(1, math.ceil(SLOT_SECONDS / max(seconds, 1e-9)))


def _event(device: torch.device) -> torch.Event | None:
    try:
        return torch.Event(device=device, enable_timing=True)
    except (RuntimeError, NotImplementedError):  # this backend's events do not record times
        return None
