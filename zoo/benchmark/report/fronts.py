"""The Pareto fronts: which rows no other of their block beats in two merits at once. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from zoo.benchmark.analysis.pareto import pareto_front
from zoo.benchmark.table.rows import Row

__all__ = ["PLOTS", "Plot", "fronts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One scatter plot: the latency across, and one merit upwards.

    Attributes:
        name: what the page calls it, and the merit's column.
        title: what it is chosen by.
        label: the upright axis, with the unit.
        scale: from the row's unit to the axis's.
        value: the merit; None where it was not measured.
    """

    name: str
    title: str
    label: str
    scale: float
    value: Callable[[Row], float | None]
    smaller_is_better: bool = True


PLOTS = (
    Plot(
        name="memory",
        title="latency and peak memory",
        label="peak memory, MiB",
        scale=2**-20,
        value=lambda row: row.peak_bytes,
    ),
    Plot(
        name="parameters",
        title="latency and parameters",
        label="parameters, millions",
        scale=1e-6,
        value=lambda row: row.parameters,
    ),
    Plot(
        name="quality",
        title="latency and quality",
        label="mean intersection over union",
        scale=1.0,
        value=lambda row: row.miou,
        smaller_is_better=False,
    ),
)


def fronts_of(rows: Sequence[Row], plot: Plot) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Return, by block, the indices of the rows on its front, the fastest first; blocks without a point are left out."""
    blocks: dict[tuple[Any, ...], list[tuple[int, float, float]]] = {}
    for index, row in enumerate(rows):
        merit = plot.value(row)
        if row.error or row.latency is None or merit is None:
            continue
        if isfinite(row.latency.median) and isfinite(merit):
            cost = merit if plot.smaller_is_better else -merit
            blocks.setdefault(row.block, []).append((index, row.latency.median, cost))
    return {
        block: tuple(found[place][0] for place in pareto_front([(x, y) for _, x, y in found]))
        for block, found in blocks.items()
    }
