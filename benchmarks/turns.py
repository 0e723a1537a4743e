"""Call functions in turn, in random order in each round, so that changes of the machine's speed affect all of them equally."""

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
    """Call each function once in each round, in random order. Return, for each function, a list of its results.

    An additional first round fills caches. Its results are not returned.
    """
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
    """Call each function once in each round. Return, for each function, a list of the seconds that its calls took.

    On an accelerator, the seconds include all kernels that a call starts.
    """
    return by_turns([partial(_seconds, call, device or torch.device("cpu")) for call in calls], rounds)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    begun = read_clock(device)
    call()
    return read_clock(device) - begun
