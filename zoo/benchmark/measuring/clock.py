"""Time one slot of calls: wall-clock time, and how long the device was busy, on the CPU and on accelerators alike."""

from __future__ import annotations

import math
import time

import torch

from zoo.benchmark.measuring.steps import Step
from zoo.benchmark.messages import Timing
from zoo.common.foreign_code import no_exits

__all__ = ["calls_to_fill_a_slot", "read_clock", "time_calls"]

SLOT_SECONDS = 0.01
"""A faster step is called several times in a row, so that the cost of reading the clock does not count."""


def read_clock(device: torch.device) -> float:
    """Wait until the device has finished its work, and return the time in seconds."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@no_exits("A call of the model")
def time_calls(step: Step, calls: int, device: torch.device) -> Timing:
    """Return the mean time of some calls in a row, including the work that they leave to the device.

    Raises:
        PluginError: the model's code tried to end the program.
        Exception: any other exception of a call.
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


def calls_to_fill_a_slot(step: Step, device: torch.device) -> int:
    """Return how many calls make a slot that is long enough for the clock."""
    return max(1, math.ceil(SLOT_SECONDS / max(time_calls(step, 1, device).seconds, 1e-9)))


def _event(device: torch.device) -> torch.Event | None:
    try:
        return torch.Event(device=device, enable_timing=True)
    except (RuntimeError, NotImplementedError):  # the events of this backend have no times
        return None
