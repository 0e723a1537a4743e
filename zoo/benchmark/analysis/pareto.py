"""Find Pareto fronts: the points, or the rows, that no other beats. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.benchmark.table.columns import COLUMNS, Column
from zoo.benchmark.table.rows import Row
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError

__all__ = ["pareto_front", "pareto_rows"]


def pareto_rows(rows: Sequence[Row], names: str) -> list[Row]:
    """Return the rows that no other row of their block beats: at least as good in all objectives, and better in one.

    Rows that failed or lack one of the values are left out, since they cannot be compared.

    Args:
        rows: of one block or several.
        names: columns in which less or more is better, by commas, such as "latency,memory".

    Raises:
        OptionError: an unknown column, one in which neither end is better, one that was measured in none of these rows, or
            no row has a value of all.
    """
    objectives = [_find_objective(rows, name.strip()) for name in names.split(",")]
    blocks: dict[Any, list[tuple[int, tuple[float, ...]]]] = {}
    for index, row in enumerate(rows):
        values = [column.value(row) for column in objectives]
        if row.failure is None and None not in values:
            costs = tuple(
                value if column.smaller_is_better else -value for column, value in zip(objectives, values, strict=True)
            )
            blocks.setdefault(row.block, []).append((index, costs))
    kept = {points[index][0] for points in blocks.values() for index in pareto_front([costs for _, costs in points])}
    if not kept:
        raise OptionError(f"--pareto: no row has a value of all of {names}.")
    return [row for index, row in enumerate(rows) if index in kept]


def pareto_front(points: Sequence[tuple[float, ...]]) -> tuple[int, ...]:
    """Return the indices of the points that no other beats, where smaller is better, in the order of the first coordinate.

    One point beats another that is nowhere smaller and somewhere larger; of equal points all are kept.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        # What beats a point is sorted before it, and is kept or beaten by a point that is: only the kept need be compared.
        if not any(_beats(points[kept], points[index]) for kept in reversed(front)):
            front.append(index)
    return tuple(front)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _find_objective(rows: Sequence[Row], name: str) -> Column:
    objectives = {column.name: column for column in COLUMNS if column.smaller_is_better is not None}
    if name not in objectives:
        is_column = any(column.name == name for column in COLUMNS)
        problem = f"in {name!r} neither less nor more is better" if is_column else f"there is no column {name!r}"
        raise OptionError(f"--pareto: {problem}.{did_you_mean(name, objectives)} Choose from: {', '.join(objectives)}.")
    if all(objectives[name].value(row) is None for row in rows if row.failure is None):
        runs = ", ".join(dict.fromkeys(str(row.run) for row in rows))
        raise OptionError(f"--pareto: {name} is not measured in these rows of run {runs}; leave it out, or choose another run.")
    return objectives[name]
