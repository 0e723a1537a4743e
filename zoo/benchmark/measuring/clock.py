"""One slot timed: wall-clock time, and how long the device was busy, on the CPU and on accelerators alike."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from zoo.benchmark.measuring.steps import Step
from zoo.common.foreign_code import no_exits

__all__ = ["Timing", "calls_to_fill_a_slot", "read_clock", "timed"]

SLOT_SECONDS = 0.01
"""What is faster than this is called several times in a row, so that the clock's own cost does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds a call: by the clock; and of the device, None where it does not tell."""

    seconds: float
    busy_seconds: float | None


def read_clock(device: torch.device) -> float:
    """Return the time in seconds, once the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@no_exits("A call of the model")
def timed(step: Step, calls: int, device: torch.device) -> Timing:
    """Return the mean of some calls in a row, all that the device was given being done.

    The device's own time is the process's CPU time, of all threads, or what lies between two events on an accelerator.

    Raises:
        PluginError: the model's code tried to end the program.
        Exception: what else a call raises.
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
    return max(1, math.ceil(SLOT_SECONDS / max(timed(step, 1, device).seconds, 1e-9)))


def _event(device: torch.device) -> torch.Event | None:
    try:
        return torch.Event(device=device, enable_timing=True)
    except (RuntimeError, NotImplementedError):  # a backend whose events keep no time
        return None
