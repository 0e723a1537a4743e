"""Decide which candidates are worth measuring: those that may be on the front of time and score. Torch-free."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["Front", "closeness", "spread"]

_T = TypeVar("_T")


class Front:
    """The shortest time among all points that have at least a given score.

    Args:
        points: the time and the score of each point. A smaller time and a larger score are better.
    """

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        self._scores: list[float] = []
        self._times: list[float] = []
        for seconds, score in sorted(points, key=lambda point: (-point[1], point[0])):
            if not self._times or seconds < self._times[-1]:
                self._scores.append(-score)  # negative, so that the list ascends, as `bisect` requires
                self._times.append(seconds)

    def seconds_for(self, score: float) -> float:
        """Return the shortest time of the points with at least this score; infinity if there are none."""
        position = bisect_left(self._scores, math.nextafter(-score, math.inf))
        return self._times[position - 1] if position else math.inf


def closeness(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return how close each point is to the front: the shortest time for at least its score, divided by its own time.

    The value is 1 on the front, and 0.5 for a point that takes twice as long as another point with at least its score.
    """
    front = Front(points)
    return [front.seconds_for(score) / seconds for seconds, score in points]


def spread(items: Iterable[_T], group: Callable[[_T], Hashable]) -> list[_T]:
    """Return the items in an order in which each beginning has items of many groups.

    First comes the first item of each group, then the second item of each group, and so on. Groups are in the order of their
    first items.
    """
    groups: dict[Hashable, list[_T]] = defaultdict(list)
    for item in items:
        groups[group(item)].append(item)
    longest = max(map(len, groups.values()), default=0)
    return [members[turn] for turn in range(longest) for members in groups.values() if turn < len(members)]
