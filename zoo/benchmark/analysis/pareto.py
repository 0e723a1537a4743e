"""Which of several points no other beats. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pareto_front"]


def pareto_front(points: Sequence[tuple[float, ...]]) -> tuple[int, ...]:
    """Return the indices of the points that no other beats, smaller being better in all, in the order of the first.

    One point beats another that is nowhere smaller and somewhere larger; of equal points all are kept.
    """
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        # what beats a point comes before it, and so does what is kept and beats that: only the kept need be asked
        if not any(_beats(points[kept], points[index]) for kept in reversed(found)):
            found.append(index)
    return tuple(found)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
