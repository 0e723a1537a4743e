"""Find the Pareto front of points, or of the rows of a table. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.benchmark.table.columns import COLUMNS, Column
from zoo.benchmark.table.rows import Row
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError

__all__ = ["pareto_front", "pareto_rows"]


def pareto_rows(rows: Sequence[Row], names: str) -> list[Row]:
    """Return the rows on the Pareto front of their block.

    A row is on the front unless another row of its block is at least as good in all objectives, and better in at least one.
    Rows that failed or lack a value of an objective are left out, since they cannot be compared.

    Args:
        rows: the rows of one or more blocks.
        names: the objectives: columns that rank rows, separated by commas, such as "latency,memory".

    Raises:
        OptionError: a column is unknown, does not rank rows, or was not measured in any of these rows; or no row has a value
            in every objective.
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
        raise OptionError(f"--pareto: no row has a value in every one of these columns: {names}.")
    return [row for index, row in enumerate(rows) if index in kept]


def pareto_front(points: Sequence[tuple[float, ...]]) -> tuple[int, ...]:
    """Return the indices of the points on the Pareto front, sorted by the first coordinate. Smaller is better.

    A point beats another point if none of its coordinates is larger and at least one is smaller. Equal points are all kept.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        # Points that beat this point come earlier in the order. If any point beats it, a point on the front does: a point that
        # is not on the front was itself beaten by one on the front. Therefore it is enough to compare with the front.
        if not any(_beats(points[kept], points[index]) for kept in reversed(front)):
            front.append(index)
    return tuple(front)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _find_objective(rows: Sequence[Row], name: str) -> Column:
    objectives = {column.name: column for column in COLUMNS if column.smaller_is_better is not None}
    if name not in objectives:
        is_column = any(column.name == name for column in COLUMNS)
        problem = f"{name!r} is not a column that ranks rows" if is_column else f"there is no column {name!r}"
        raise OptionError(f"--pareto: {problem}.{did_you_mean(name, objectives)} Choose from: {', '.join(objectives)}.")
    if all(objectives[name].value(row) is None for row in rows if row.failure is None):
        runs = ", ".join(dict.fromkeys(str(row.run) for row in rows))
        raise OptionError(
            f"--pareto: {name} is not measured in these rows (run {runs}). Leave this column out, or choose another run."
        )
    return objectives[name]
