"""How these scripts measure one thing beside another: by turns, in rounds whose order changes, so that drift hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

__all__ = ["by_turns", "seconds_by_turns"]

Figure = TypeVar("Figure")


def by_turns(calls: Sequence[Callable[[], Figure]], rounds: int) -> list[list[Figure]]:
    """Return what each call gave in each round; a round before the first, which compiles and fills caches, is left out."""
    figures: list[list[Figure]] = [[] for _ in calls]
    for done in range(rounds + 1):
        for index in random.sample(range(len(calls)), len(calls)):
            figure = calls[index]()
            if done:
                figures[index].append(figure)
    return figures


def seconds_by_turns(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return the seconds that each call took in each round."""
    return by_turns([partial(_seconds, call) for call in calls], rounds)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
