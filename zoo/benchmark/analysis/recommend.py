"""Which pairings to choose under given limits: the measured ones that keep them and that no other beats. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.benchmark.analysis.fields import quantity, told_quantity
from zoo.benchmark.analysis.selection import pareto
from zoo.benchmark.table.columns import column_named
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError

__all__ = ["LIMITS", "MERITS", "Choice", "Limit", "Pick", "Reached", "Recommendation", "recommend"]

LIMITS = {
    "max_latency": "latency",
    "max_memory": "memory",
    "max_parameters": "parameters",
    "max_flops": "flops",
    "min_throughput": "throughput",
    "min_quality": "quality",
}
"""What may be limited, by the keyword of `recommend`, and the column that it limits."""

OBJECTIVES = {"latency": "fastest", "memory": "least memory", "parameters": "fewest parameters", "quality": "best quality"}
"""What a pairing is chosen for, and what the best in it is called."""


MERITS = {"throughput": "throughput", "miou": "quality"}
"""What may be maximised, and its column: what stands first among the pairings that fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound that a choice must keep, in the column's own unit: seconds, bytes, parameters, FLOPs, images/s or a share."""

    keyword: str
    bound: float

    @property
    def column(self) -> str:
        """What it limits."""
        return LIMITS[self.keyword]

    @property
    def is_upper(self) -> bool:
        """Whether less is better."""
        return self.keyword.startswith("max")

    def reached(self, row: Row) -> float | None:
        """Return what a row promises: the unfavourable end of its interval where there is one; None if it is not known."""
        if self.column == "latency":
            return row.latency.high if row.latency else None
        if self.column == "throughput":
            return row.batch / row.latency.high if row.latency else None
        value: float | None = column_named(self.column).value(row)
        return value

    def keeps(self, row: Row) -> bool:
        """Whether a row is known to keep it."""
        value = self.reached(row)
        return value is not None and (value <= self.bound if self.is_upper else value >= self.bound)

    def loosened(self, row: Row) -> Limit:
        """Return the tightest limit of three digits that a row keeps."""
        value = self.reached(row)
        assert value is not None
        unit = quantity(self.column, "1")
        step = 10.0 ** (math.floor(math.log10(value / unit)) - 2) if value > 0 else 1.0
        steps = math.ceil(value / unit / step) if self.is_upper else math.floor(value / unit / step)
        while True:
            told = told_quantity(self.column, steps * step * unit)
            limit = replace(self, bound=quantity(self.column, told))
            if limit.keeps(row):
                return limit
            steps += 1 if self.is_upper else -1

    def __str__(self) -> str:
        return f"--{self.keyword.replace('_', '-')} {told_quantity(self.column, self.bound)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How a limit bounds the choice in a block.

    Attributes:
        missed: how many rows do not keep it; `alone`: how many of them keep all the others.
        unknown: how many of the missed have no such value.
        nearest: the row that comes closest to it of those that miss nothing else, or, where nothing fits, of all.
        also_missed: the other limits that the nearest row misses.
    """

    limit: Limit
    missed: int
    alone: int
    unknown: int
    nearest: Row | None
    also_missed: tuple[Limit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One row worth choosing, and what it is best in."""

    row: Row
    best_in: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to choose of one block, whose rows alone are compared with one another.

    Attributes:
        measured: how many pairings there are; `fitting`: how many keep every limit.
        picks: those of the fitting that no other beats, the best in what is maximised first; a reference only where no
            pairing fits.
        lacking: fitting rows that lack one of the objectives' values, of which nothing can be said.
        failed: how many pairings failed.
        limits: how each bounds the choice, the one that excludes most by itself first.
    """

    block: tuple[Any, ...]
    objectives: tuple[str, ...]
    measured: int
    fitting: int
    picks: tuple[Pick, ...]
    lacking: tuple[Row, ...]
    failed: int
    limits: tuple[Reached, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to choose, block by block."""

    table: Table
    limits: tuple[Limit, ...]
    choices: tuple[Choice, ...]

    @property
    def fits(self) -> bool:
        """Whether any pairing keeps every limit; any reference, where no pairing was measured."""
        return any(choice.fitting or (choice.picks and not choice.measured) for choice in self.choices)

    @property
    def has_quality(self) -> bool:
        """Whether it says anything of quality; else it is about cost alone."""
        return any("quality" in choice.objectives for choice in self.choices)


def recommend(
    table: Table,
    *,
    device: str | None = None,
    mode: str = "inference",
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    dtype: str | None = None,
    max_latency: float | None = None,
    max_memory: float | None = None,
    max_parameters: float | None = None,
    max_flops: float | None = None,
    min_throughput: float | None = None,
    min_quality: float | None = None,
    maximize: str = "throughput",
) -> Recommendation:
    """Return the pairings that keep every limit and that no other beats in latency, memory, parameters and quality.

    A limit is kept where the unfavourable end of the interval keeps it, so that the promise holds.

    Args:
        table: what was measured; rows that failed are never chosen.
        device: its kind ("cpu", "cuda") or a part of its name.
        mode: "inference" or "training".
        batch: images a call; None for all, each for itself.
        size: height and width.
        dtype: "float32", "bfloat16".
        max_latency: seconds a call.
        max_memory: bytes, of the table's peak.
        max_parameters: all of them, of encoder, adapters, decoder and head.
        max_flops: of one forward pass for one image.
        min_throughput: images a second.
        min_quality: mean intersection over union.
        maximize: what decides the order of those that fit, "throughput" or "miou"; where it is the quality and seeds cannot
            tell some apart, the fastest of these comes first.

    Raises:
        OptionError: nothing of that kind was measured, or a limit or the merit is of what was measured nowhere.
    """
    bounds = {
        "max_latency": max_latency,
        "max_memory": max_memory,
        "max_parameters": max_parameters,
        "max_flops": max_flops,
        "min_throughput": min_throughput,
        "min_quality": min_quality,
    }
    limits = tuple(Limit(keyword=keyword, bound=bound) for keyword, bound in bounds.items() if bound is not None)
    asked: Mapping[str, tuple[object, Callable[[Row], bool], Callable[[Row], object]]] = {
        "device": (device, lambda row: _is_on(row, device), lambda row: f"{row.device} ({row.device_name})"),
        "mode": (mode, lambda row: row.mode == mode, lambda row: row.mode),
        "batch": (batch, lambda row: row.batch == batch, lambda row: row.batch),
        "size": (size and "x".join(map(str, size)), lambda row: (row.height, row.width) == size, _size),
        "dtype": (dtype, lambda row: row.dtype == dtype, lambda row: row.dtype),
    }
    rows: Sequence[Row] = table.rows
    for name, (value, is_asked, found) in asked.items():
        if value is not None:
            rows = _narrowed(rows, name, value, is_asked, found)
    measured = [row for row in rows if row.failure is None and row.latency]
    if not measured:
        raise OptionError(f"None of the {len(rows)} rows asked about was measured; `zoo table` shows why.")
    for limit in limits:
        if all(limit.reached(row) is None for row in measured):
            raise OptionError(f"{limit}: {limit.column} is not measured in these runs; leave it out, or choose another run.")
    if maximize not in MERITS:
        raise OptionError(f"--maximize is one of {', '.join(MERITS)}; found {maximize!r}.{did_you_mean(maximize, MERITS)}")
    if maximize == "miou" and all(row.miou is None for row in measured):
        raise OptionError("--maximize miou: quality is not measured in these runs; `zoo bench CONFIG --quality TASK` does.")
    blocks = dict.fromkeys(row.block for row in rows)
    return Recommendation(
        table=replace(table, rows=tuple(rows)),
        limits=limits,
        choices=tuple(_choice(table, [row for row in rows if row.block == block], limits, maximize) for block in blocks),
    )


def _is_on(row: Row, device: str | None) -> bool:
    return device is not None and (device == row.device or device.lower() in row.device_name.lower())


def _size(row: Row) -> str:
    return f"{row.height}x{row.width}"


def _narrowed(
    rows: Sequence[Row], name: str, value: object, is_asked: Callable[[Row], bool], found: Callable[[Row], object]
) -> list[Row]:
    kept = [row for row in rows if is_asked(row)]
    if not kept:
        there_is = ", ".join(dict.fromkeys(str(found(row)) for row in rows)) or "nothing"
        raise OptionError(f"--{name} {value}: nothing of that was measured; there is: {there_is}.")
    return kept


def _choice(table: Table, rows: Sequence[Row], limits: Sequence[Limit], maximize: str) -> Choice:
    measured = [row for row in rows if row.failure is None and row.latency]
    pairings = [row for row in measured if row.code]
    fitting = _keeping(pairings, limits)
    pool = fitting or _keeping(measured, limits)
    objectives = _objectives(pool)
    kept = pareto(replace(table, rows=tuple(pool)), ",".join(objectives)).rows if pool else ()
    kept = _ordered(kept, maximize)
    reached = [_reached(pairings or measured, limit, limits, has_fitting=bool(fitting)) for limit in limits]
    return Choice(
        block=rows[0].block,
        objectives=objectives,
        measured=len(pairings),
        fitting=len(fitting),
        picks=tuple(Pick(row=row, best_in=_best_in(row, pool, objectives)) for row in kept),
        lacking=tuple(row for row in pool if any(column_named(name).value(row) is None for name in objectives)),
        failed=sum(row.failure is not None and bool(row.code) for row in rows),
        limits=tuple(sorted(reached, key=lambda each: (-each.alone, -each.missed))),
    )


def _ordered(rows: Sequence[Row], maximize: str) -> tuple[Row, ...]:
    """Return the fastest first; or, where quality counts, those that cannot be told from the best one, and then the others."""
    fastest = sorted(rows, key=lambda row: column_named("latency").value(row))
    if maximize != "miou":
        return tuple(fastest)
    best = _rivals(fastest)
    others = [row for row in fastest if row not in best]
    return (*best, *sorted(others, key=lambda row: -(row.miou or 0.0)))


def _rivals(rows: Sequence[Row]) -> list[Row]:
    """Return the row of the best quality, and those that the seeds cannot tell from it."""
    known = [row for row in rows if row.miou is not None]
    best = max(known, key=lambda row: row.miou or 0.0, default=None)
    return [row for row in known if row is best or (best and _is_tied(row, best))]


def _is_tied(row: Row, other: Row) -> bool:
    difference = row.quality.difference(other.quality) if row.quality and other.quality else None
    return difference is not None and difference.is_tie


def _objectives(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return what rows can be compared by: all that was measured of any, or, where no row has all that, of each."""
    known = {name: [column_named(name).value(row) is not None for row in rows] for name in OBJECTIVES}
    found = tuple(name for name, has in known.items() if any(has))
    is_any_complete = any(all(known[name][place] for name in found) for place in range(len(rows)))
    return found if is_any_complete else tuple(name for name, has in known.items() if rows and all(has))


def _keeping(rows: Sequence[Row], limits: Sequence[Limit]) -> list[Row]:
    return [row for row in rows if all(limit.keeps(row) for limit in limits)]


def _best_in(row: Row, rows: Sequence[Row], objectives: Sequence[str]) -> tuple[str, ...]:
    """Return what a row is best in among these; latencies whose intervals overlap are a tie."""
    found = []
    for name in objectives:
        column = column_named(name)
        values = [value for other in rows if (value := column.value(other)) is not None]
        best = min(values) if column.smaller_is_better else max(values)
        if name == "latency":
            reach = next(other.latency.high for other in rows if other.latency and other.latency.median == best)
            rivals = [other for other in rows if other.latency and other.latency.low <= reach]
            if row in rivals:
                found.append(OBJECTIVES[name] + (" (tie)" if len(rivals) > 1 else ""))
        elif name == "quality":
            if row in (equals := _rivals(rows)):
                found.append(OBJECTIVES[name] + (" (tie)" if len(equals) > 1 else ""))
        elif column.value(row) == best:
            found.append(OBJECTIVES[name])
    return tuple(found)


def _reached(rows: Sequence[Row], limit: Limit, limits: Sequence[Limit], *, has_fitting: bool) -> Reached:
    def missed_too(row: Row) -> tuple[Limit, ...]:
        return tuple(other for other in limits if other is not limit and not other.keeps(row))

    missing = [row for row in rows if not limit.keeps(row)]
    alone = [row for row in missing if not missed_too(row)]
    pool = [row for row in (alone if alone or has_fitting else missing) if limit.reached(row) is not None]
    sign = 1 if limit.is_upper else -1
    nearest = min(pool, key=lambda row: sign * (limit.reached(row) or 0.0), default=None)
    return Reached(
        limit=limit,
        missed=len(missing),
        alone=len(alone),
        unknown=sum(limit.reached(row) is None for row in missing),
        nearest=nearest,
        also_missed=missed_too(nearest) if nearest else (),
    )
