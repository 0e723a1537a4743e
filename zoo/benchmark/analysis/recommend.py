"""Recommend pairings: those measured that meet every limit and that no other beats. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.benchmark.analysis.conditions import Condition, filter_rows
from zoo.benchmark.analysis.facts import FACTS, Fact
from zoo.benchmark.analysis.pareto import pareto_rows
from zoo.benchmark.table.columns import column_named
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError
from zoo.registry.image_sizes import Size, format_size

__all__ = ["LIMITS", "Choice", "Exclusion", "Pick", "Recommendation", "loosen", "parse_limit", "recommend"]

LIMITS = {
    "max_latency": ("latency", "<="),
    "max_memory": ("memory", "<="),
    "max_parameters": ("parameters", "<="),
    "max_flops": ("flops", "<="),
    "min_throughput": ("throughput", ">="),
    "min_quality": ("quality", ">="),
}
"""The column that each limit bounds, and how."""

WORST: dict[str, Callable[[Row], float | None]] = {
    "latency": lambda row: row.latency.high if row.latency else None,
    "throughput": lambda row: row.batch / row.latency.high if row.latency else None,
}
"""The worse end of the interval, which is what a limit holds for, of the columns that have one."""

OBJECTIVES = {"latency": "fastest", "memory": "least memory", "parameters": "fewest parameters", "quality": "best quality"}
"""The columns that pairings are compared by, and what the best in each is called."""

MAXIMIZED = ("throughput", "miou")
"""What may come first among the pairings that fit."""

DEVICE = Fact(name="device", kind="text", value=lambda row: f"{row.device} ({row.device_name})", units={})
"""The kind of a device and its name in one, so that a part of either selects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """What a limit excludes in a block.

    Attributes:
        missed: how many rows do not meet it; `alone`: how many of them meet all other limits.
        unknown: how many of the missed have no such value.
        nearest: the row closest to the limit among those that miss nothing else, or, where nothing fits, among all.
        also_missed: the other limits that the nearest row misses.
    """

    limit: Condition
    missed: int
    alone: int
    unknown: int
    nearest: Row | None
    also_missed: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One row worth choosing, and what it is best in."""

    row: Row
    best_in: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to choose from one block; rows of different blocks are never compared.

    Attributes:
        objectives: the columns that the rows were compared by.
        measured: how many pairings were measured; `fitting`: how many of them meet every limit.
        picks: those of the fitting that no other beats, in the order asked for; references only where no pairing fits.
        lacking: fitting rows that lack one of the objectives' values and so cannot be compared.
        failed: how many pairings failed.
        exclusions: one for each limit, the limit that excludes most by itself first.
    """

    block: tuple[Any, ...]
    objectives: tuple[str, ...]
    measured: int
    fitting: int
    picks: tuple[Pick, ...]
    lacking: tuple[Row, ...]
    failed: int
    exclusions: tuple[Exclusion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to choose, block by block."""

    table: Table
    limits: tuple[Condition, ...]
    choices: tuple[Choice, ...]

    @property
    def fits(self) -> bool:
        """Whether any pairing meets every limit, or any reference where no pairing was measured."""
        return any(choice.fitting or (choice.picks and not choice.measured) for choice in self.choices)

    @property
    def has_quality(self) -> bool:
        """Whether quality was compared, not cost alone."""
        return any("quality" in choice.objectives for choice in self.choices)


def recommend(
    table: Table,
    *,
    device: str | None = None,
    mode: str = "inference",
    batch: int | None = None,
    size: Size | None = None,
    dtype: str | None = None,
    maximize: str = "throughput",
    **limits: str,
) -> Recommendation:
    """Return the pairings that meet every limit and that no other beats in latency, memory, parameters and quality.

    Args:
        table: the rows to choose from; those that failed are never chosen.
        device: its kind ("cpu", "cuda") or a part of its name.
        mode: "inference" or "training".
        batch: images per call; None for all, each by itself.
        size: height and width.
        dtype: "float32", "bfloat16".
        maximize: what comes first among those that fit, "throughput" or "miou"; of those whose quality the seeds cannot tell
            from the best one's, the fastest comes first.
        limits: by the names in `LIMITS`, such as max_latency="20ms"; the worse end of a row's interval must meet them.

    Raises:
        OptionError: nothing of that kind was measured, or a limit or `maximize` needs what was measured nowhere.
    """
    bounds = [parse_limit(name, value) for name, value in limits.items()]
    if maximize not in MAXIMIZED:
        raise OptionError(
            f"--maximize is one of {', '.join(MAXIMIZED)}; found {maximize!r}.{did_you_mean(maximize, MAXIMIZED)}"
        )
    wanted = {"device": device, "mode": mode, "batch": batch, "size": size and format_size(size), "dtype": dtype}
    rows: Sequence[Row] = table.rows
    for name, value in wanted.items():
        if value is not None:
            rows = _narrow(rows, name, str(value))
    measured = [row for row in rows if row.failure is None and row.latency]
    if not measured:
        raise OptionError(f"None of the {len(rows)} selected rows was measured; `zoo table` shows why.")
    for limit in bounds:
        if all(limit.fact.value(row) is None for row in measured):
            raise OptionError(f"{limit}: {limit.fact.name} is not measured in these runs; leave it out, or choose another run.")
    if maximize == "miou" and all(row.miou is None for row in measured):
        raise OptionError("--maximize miou: quality is not measured in these runs; `zoo bench CONFIG --quality TASK` does.")
    blocks: dict[Any, list[Row]] = {}
    for row in rows:
        blocks.setdefault(row.block, []).append(row)
    return Recommendation(
        table=replace(table, rows=tuple(rows)),
        limits=tuple(bounds),
        choices=tuple(_choose(block, bounds, maximize) for block in blocks.values()),
    )


def parse_limit(name: str, value: str) -> Condition:
    """Return a limit as a condition on the worse end of a row's interval.

    Raises:
        OptionError: an unknown limit, or a value that its column cannot have.
    """
    if name not in LIMITS:
        raise OptionError(f"There is no limit {name!r}.{did_you_mean(name, LIMITS)} There are: {', '.join(LIMITS)}.")
    column, sign = LIMITS[name]
    fact = replace(FACTS[column], value=WORST.get(column, FACTS[column].value))
    unit = fact.unit if value[-1:].isdigit() else ""  # so that messages show the unit that a plain number was taken in
    return Condition(fact=fact, sign=sign, value=value + unit, option=f"--{name.replace('_', '-')}")


def loosen(limit: Condition, row: Row) -> Condition:
    """Return the tightest limit of three digits that a row meets."""
    value, unit = limit.fact.value(row), limit.fact.units.get(limit.fact.unit, 1.0)
    step = 10.0 ** (math.floor(math.log10(value / unit)) - 2) if value > 0 else 1.0
    is_upper = limit.sign == "<="
    steps = math.ceil(value / unit / step) if is_upper else math.floor(value / unit / step)
    while True:
        looser = replace(limit, value=limit.fact.format(steps * step * unit))
        if looser.meets(row):  # as it is written, which may be rounded
            return looser
        steps += 1 if is_upper else -1


def _narrow(rows: Sequence[Row], name: str, value: str) -> list[Row]:
    """Return the rows with this value of a fact; there must be one."""
    fact, sign = (DEVICE, "~") if name == "device" else (FACTS[name], "=")
    condition = Condition(fact=fact, sign=sign, value=value, option=f"--{name}")
    kept = filter_rows(rows, [condition])
    if not kept:
        measured = ", ".join(dict.fromkeys(fact.format(fact.value(row)) for row in rows)) or "nothing"
        raise OptionError(f"{condition} was not measured in these runs; measured: {measured}.")
    return kept


def _choose(rows: Sequence[Row], limits: Sequence[Condition], maximize: str) -> Choice:
    """Return what to choose from the rows of one block."""
    measured = [row for row in rows if row.failure is None and row.latency]
    pairings = [row for row in measured if row.code]
    fitting = filter_rows(pairings, limits)
    # Where no pairing fits, references that do show that the limits can be met.
    pool = fitting or filter_rows(measured, limits)
    objectives = _find_objectives(pool)
    winners = {name: _find_winners(pool, name) for name in objectives}
    front = pareto_rows(pool, ",".join(objectives)) if pool else []
    exclusions = [_find_exclusion(pairings or measured, limit, limits, has_fitting=bool(fitting)) for limit in limits]
    return Choice(
        block=rows[0].block,
        objectives=objectives,
        measured=len(pairings),
        fitting=len(fitting),
        picks=tuple(Pick(row=row, best_in=_name_merits(row, winners)) for row in _order(front, maximize)),
        lacking=tuple(row for row in pool if any(column_named(name).value(row) is None for name in objectives)),
        failed=sum(row.failure is not None and bool(row.code) for row in rows),
        exclusions=tuple(sorted(exclusions, key=lambda each: (-each.alone, -each.missed))),
    )


def _find_objectives(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return what rows are compared by: all that is known of any, or, where no row has all of it, what is known of each."""
    known = [{name for name in OBJECTIVES if column_named(name).value(row) is not None} for row in rows]
    names = {name for each in known for name in each}
    if names not in known:
        names = names.intersection(*known)
    return tuple(name for name in OBJECTIVES if name in names)


def _find_winners(rows: Sequence[Row], objective: str) -> list[Row]:
    """Return the row that is best in an objective, and the rows that tie with it."""
    column = column_named(objective)
    known = [row for row in rows if column.value(row) is not None]
    best = (min if column.smaller_is_better else max)(known, key=column.value)
    return [row for row in known if row is best or _is_tied(row, best, objective)]


def _is_tied(row: Row, best: Row, objective: str) -> bool:
    if objective == "latency" and row.latency and best.latency:
        return row.latency.low <= best.latency.high
    if objective == "quality" and row.quality and best.quality:
        difference = row.quality.difference(best.quality)
        return difference is not None and difference.is_tie
    column = column_named(objective)
    return bool(column.value(row) == column.value(best))


def _name_merits(row: Row, winners: dict[str, list[Row]]) -> tuple[str, ...]:
    """Return what a row is best in; a tie is named where measuring again could change the winner."""
    return tuple(
        OBJECTIVES[name] + (" (tie)" if len(rows) > 1 and name in ("latency", "quality") else "")
        for name, rows in winners.items()
        if row in rows
    )


def _order(rows: Sequence[Row], maximize: str) -> list[Row]:
    """Return the fastest first; or, to maximize quality, those that tie with the best one, and then the others."""
    fastest = sorted(rows, key=column_named("latency").value)
    if maximize == "throughput" or all(row.miou is None for row in fastest):
        return fastest
    best = _find_winners(fastest, "quality")
    return best + sorted((row for row in fastest if row not in best), key=lambda row: -(row.miou or 0.0))


def _find_exclusion(rows: Sequence[Row], limit: Condition, limits: Sequence[Condition], *, has_fitting: bool) -> Exclusion:
    def find_other_misses(row: Row) -> tuple[Condition, ...]:
        return tuple(other for other in limits if other is not limit and not other.meets(row))

    missing = [row for row in rows if not limit.meets(row)]
    alone = [row for row in missing if not find_other_misses(row)]
    # A row that misses other limits too is worth naming only where nothing fits: loosening this limit would not admit it.
    pool = [row for row in (alone if alone or has_fitting else missing) if limit.fact.value(row) is not None]
    sign = 1 if limit.sign == "<=" else -1
    nearest = min(pool, key=lambda row: sign * (limit.fact.value(row) or 0.0), default=None)
    return Exclusion(
        limit=limit,
        missed=len(missing),
        alone=len(alone),
        unknown=sum(limit.fact.value(row) is None for row in missing),
        nearest=nearest,
        also_missed=find_other_misses(nearest) if nearest else (),
    )
