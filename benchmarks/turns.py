"""Measure alternatives in turn, in random order in each round, so that drift affects all equally."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from zoo.benchmark.measuring.clock import read_clock

__all__ = ["by_turns", "seconds_by_turns"]

Figure = TypeVar("Figure")


def by_turns(calls: Sequence[Callable[[], Figure]], rounds: int) -> list[list[Figure]]:
    """Return the results of each call, one for each round. An additional first round fills caches, and is not returned."""
    figures: list[list[Figure]] = [[] for _ in calls]
    for done in range(rounds + 1):
        for index in random.sample(range(len(calls)), len(calls)):
            figure = calls[index]()
            if done:
                figures[index].append(figure)
    return figures


def seconds_by_turns(
    calls: Sequence[Callable[[], object]], rounds: int, device: torch.device | None = None
) -> list[list[float]]:
    """Return the seconds of each call in each round. On an accelerator, all kernels that the call starts are included."""
    return by_turns([partial(_seconds, call, device or torch.device("cpu")) for call in calls], rounds)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    begun = read_clock(device)
    call()
    return read_clock(device) - begun
