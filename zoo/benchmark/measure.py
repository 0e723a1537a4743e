"""Times the trials of one group in interleaved rounds, on the CPU and on accelerators alike."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from zoo.benchmark.steps import Step, build_subject, make_step
from zoo.benchmark.trial import Trial

__all__ = ["Failure", "PreparedTrial", "Sample", "measure_round", "peak_memory", "prepare", "told_failure"]

SLOT_SECONDS = 0.01
"""What is faster than this is called several times in a row, so that the clock's own cost does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One slot of one round: the trial's mean seconds a call, over `calls` calls."""

    trial: Trial
    slot: int
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that raised, and how to tell it in a row."""

    trial: Trial
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTrial:
    """A trial whose model is on the device and warm."""

    trial: Trial
    step: Step
    calls: int


def prepare(trial: Trial, device: torch.device, *, warmup: int, seed: int) -> PreparedTrial:
    """Build the trial's model from a fixed seed, run it `warmup` times, and choose how many calls fill a slot.

    Raises:
        Exception: whatever building or running the model raises.
    """
    torch.manual_seed(seed)
    step = make_step(build_subject(trial), trial, device)
    for _ in range(warmup):
        step()
    calls = max(1, math.ceil(SLOT_SECONDS / max(_timed(step, 1, device), 1e-9)))
    return PreparedTrial(trial=trial, step=step, calls=calls)


def measure_round(prepared: list[PreparedTrial], device: torch.device, *, number: int, seed: int) -> Iterator[Sample | Failure]:
    """Measure each trial once, in an order that `seed` and the round's number fix; a trial that raises is a failure."""
    order = list(prepared)
    random.Random(f"{seed}:{number}").shuffle(order)
    for slot, entry in enumerate(order):
        try:
            seconds = _timed(entry.step, entry.calls, device)
        except Exception as cause:  # noqa: BLE001 - whatever a plugin's model raises becomes its row
            yield Failure(trial=entry.trial, error=told_failure(cause))
        else:
            yield Sample(trial=entry.trial, slot=slot, calls=entry.calls, seconds=seconds)


def peak_memory(trial: Trial, device: torch.device, *, seed: int) -> int | None:
    """Return the most bytes that the accelerator's allocator held during a step, alone on it; None where it cannot tell.

    Raises:
        Exception: whatever building or running the model raises.
    """
    backend = torch.get_device_module(device)
    reset: Callable[..., None] | None = getattr(backend, "reset_peak_memory_stats", None)
    if device.type == "cpu" or reset is None:
        return None
    gc.collect()
    backend.empty_cache()
    before = backend.memory_allocated(device)
    torch.manual_seed(seed)
    step = make_step(build_subject(trial), trial, device)
    step()
    reset(device)
    step()
    torch.accelerator.synchronize(device)
    return int(backend.max_memory_allocated(device) - before)


def told_failure(cause: Exception) -> str:
    """Return an exception as one row's text."""
    return f"{type(cause).__name__}: {cause}".strip()


def _timed(step: Step, calls: int, device: torch.device) -> float:
    """Return the mean seconds a call."""
    began = _clock(device)
    for _ in range(calls):
        step()
    return (_clock(device) - began) / calls


def _clock(device: torch.device) -> float:
    """Return the time once the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
