"""Recommend measured pairings that meet every limit and are on the Pareto front. Torch-free."""

from __future__ import annotations

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

__all__ = ["LIMITS", "Choice", "Exclusion", "Pick", "Recommendation", "find_exclusions", "loosen", "parse_limit", "recommend"]

LIMITS = {
    "max_latency": ("latency", "<="),
    "max_memory": ("memory", "<="),
    "max_parameters": ("parameters", "<="),
    "max_flops": ("flops", "<="),
    "min_throughput": ("throughput", ">="),
    "min_quality": ("quality", ">="),
}
"""For each limit, the column that it bounds, and the comparison that must hold."""

WORST: dict[str, Callable[[Row], float | None]] = {
    "latency": lambda row: row.latency.high if row.latency else None,
    "throughput": lambda row: row.batch / row.latency.high if row.latency else None,
}
"""For each column with an interval, a function that returns the worse end of a row's interval. This end must meet a limit."""

OBJECTIVES = {"latency": "fastest", "memory": "least memory", "parameters": "fewest parameters", "quality": "best quality"}
"""The columns by which pairings are compared, each with the label of the best pairing."""

MAXIMIZED = ("throughput", "miou")
"""The values of `maximize`, which determines the order of the recommended pairings."""

DEVICE = Fact(name="device", kind="text", value=lambda row: f"{row.device} ({row.device_name})", units={})
"""The type and the name of a device as one text, so that users can select the device by a part of this text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """The rows of a block that a limit excludes.

    Attributes:
        limit: the limit.
        missed: the number of rows that do not meet the limit.
        alone: the number of these excluded rows that meet all other limits.
        unknown: the number of these excluded rows that have no value to compare with the limit.
        nearest: the excluded row that is closest to the limit. Only rows that meet all other limits are considered; if there
            are none, and no pairing of the block meets every limit, all excluded rows are considered. None if no considered
            row has a value.
        also_missed: the other limits that `nearest` does not meet.
    """

    limit: Condition
    missed: int
    alone: int
    unknown: int
    nearest: Row | None
    also_missed: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A recommended row, and the objectives in which it is best."""

    row: Row
    best_in: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The recommendation for one block. Rows of different blocks are never compared.

    Attributes:
        block: the run, mode, batch, height, width and dtype that the rows of the block share.
        objectives: the columns by which the rows were compared.
        measured: the number of pairings that were measured.
        fitting: the number of those pairings that meet every limit.
        picks: the rows on the Pareto front of the rows that meet every limit, in the requested order. References (models that
            are not pairings) are picked only if no pairing meets every limit.
        lacking: the rows that meet every limit but have no value in one of the objectives, so that they cannot be compared.
        failed: the number of pairings that failed.
        exclusions: what each limit excludes. The limit whose removal would admit the most rows comes first.
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
    """The recommendations for all blocks.

    Attributes:
        table: the selected rows.
        limits: the limits that a pairing must meet.
        choices: one for each block.
    """

    table: Table
    limits: tuple[Condition, ...]
    choices: tuple[Choice, ...]

    @property
    def fits(self) -> bool:
        """Whether a pairing of at least one block meets every limit.

        In a block without a measured pairing, a reference that meets every limit counts instead.
        """
        return any(choice.fitting or (choice.picks and not choice.measured) for choice in self.choices)

    @property
    def has_quality(self) -> bool:
        """Whether quality was compared in addition to cost."""
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
    """Return the pairings that meet every limit and are on the Pareto front of latency, memory, parameters and quality.

    Args:
        table: the rows to choose from. Rows that failed are never chosen.
        device: the type of the device ("cpu", "cuda") or a part of its name; None for all devices.
        mode: "inference" or "training".
        batch: images per call; None for all batches, which are treated separately.
        size: height and width; None for all sizes.
        dtype: "float32" or "bfloat16"; None for both.
        maximize: the order of the recommended pairings. "throughput": by latency, the fastest first. "miou": first the
            pairings whose quality ties with the best, sorted by latency; then the others, sorted by quality.
        limits: the limits as keyword arguments with the names in `LIMITS`, such as max_latency="20ms". If a row's value has an
            interval, the worse end of the interval must meet the limit.

    Raises:
        OptionError: no row was measured with the requested device, mode, batch, size and dtype; a limit or `maximize` is
            invalid; or the column of a limit, or the quality that `maximize` requires, was not measured in any of these rows.
    """
    bounds = [parse_limit(name, value) for name, value in limits.items()]
    if maximize not in MAXIMIZED:
        raise OptionError(
            f"--maximize must be one of {', '.join(MAXIMIZED)}; found {maximize!r}.{did_you_mean(maximize, MAXIMIZED)}"
        )
    wanted = {"device": device, "mode": mode, "batch": batch, "size": size and format_size(size), "dtype": dtype}
    rows: Sequence[Row] = table.rows
    for name, value in wanted.items():
        if value is not None:
            rows = _narrow(rows, name, str(value))
    measured = [row for row in rows if row.failure is None and row.latency]
    if not measured:
        raise OptionError(f"None of the {len(rows)} selected rows was measured. `zoo table` shows their errors.")
    for limit in bounds:
        if all(limit.fact.value(row) is None for row in measured):
            raise OptionError(
                f"{limit}: {limit.fact.name} is not measured in these runs. Leave this limit out, or choose another run."
            )
    if maximize == "miou" and all(row.miou is None for row in measured):
        raise OptionError(
            "--maximize miou: quality is not measured in these runs. Measure it with `zoo bench CONFIG --quality TASK`."
        )
    blocks: dict[Any, list[Row]] = {}
    for row in rows:
        blocks.setdefault(row.block, []).append(row)
    return Recommendation(
        table=replace(table, rows=tuple(rows)),
        limits=tuple(bounds),
        choices=tuple(_choose(block, bounds, maximize) for block in blocks.values()),
    )


def parse_limit(name: str, value: str) -> Condition:
    """Parse an option such as `--max-latency 50ms` into a condition on rows.

    If a row's value has an interval, the worse end of the interval must meet the condition.

    Raises:
        OptionError: the limit is unknown, or its value is not valid for the column.
    """
    if name not in LIMITS:
        raise OptionError(f"There is no limit {name!r}.{did_you_mean(name, LIMITS)} Choose from: {', '.join(LIMITS)}.")
    column, sign = LIMITS[name]
    fact = replace(FACTS[column], value=WORST.get(column, FACTS[column].value))
    unit = fact.unit if value[-1:].isdigit() else ""  # so that messages show the unit of a plain number
    return Condition(fact=fact, sign=sign, value=value + unit, option=f"--{name.replace('_', '-')}")


def loosen(limit: Condition, row: Row) -> Condition:
    """Return the tightest limit that a row meets and that can be written with three digits."""
    return replace(limit, value=limit.fact.format_limit(limit.fact.value(row), is_upper=limit.sign == "<="))


def _narrow(rows: Sequence[Row], name: str, value: str) -> list[Row]:
    """Return the rows whose column `name` (or whose device) has this value. Raise an OptionError if there are no such rows."""
    fact, sign = (DEVICE, "~") if name == "device" else (FACTS[name], "=")
    condition = Condition(fact=fact, sign=sign, value=value, option=f"--{name}")
    kept = filter_rows(rows, [condition])
    if not kept:
        measured = ", ".join(dict.fromkeys(fact.format(fact.value(row)) for row in rows)) or "nothing"
        raise OptionError(f"{condition} was not measured in these runs; measured: {measured}.")
    return kept


def _choose(rows: Sequence[Row], limits: Sequence[Condition], maximize: str) -> Choice:
    """Return the recommendation for the rows of one block."""
    measured = [row for row in rows if row.failure is None and row.latency]
    pairings = [row for row in measured if row.code]
    fitting = filter_rows(pairings, limits)
    # If no pairing meets the limits, the references that do are shown, because they prove that the limits can be met.
    pool = fitting or filter_rows(measured, limits)
    objectives = _find_objectives(pool)
    winners = {name: _find_winners(pool, name) for name in objectives}
    front = pareto_rows(pool, ",".join(objectives)) if pool else []
    return Choice(
        block=rows[0].block,
        objectives=objectives,
        measured=len(pairings),
        fitting=len(fitting),
        picks=tuple(Pick(row=row, best_in=_name_merits(row, winners)) for row in _order(front, maximize)),
        lacking=tuple(row for row in pool if any(column_named(name).value(row) is None for name in objectives)),
        failed=sum(row.failure is not None and bool(row.code) for row in rows),
        exclusions=find_exclusions(pairings or measured, limits, has_fitting=bool(fitting)),
    )


def find_exclusions(rows: Sequence[Row], limits: Sequence[Condition], *, has_fitting: bool) -> tuple[Exclusion, ...]:
    """Return what each limit excludes. The limit whose removal would admit the most rows comes first.

    Args:
        rows: the measured rows.
        limits: the limits.
        has_fitting: whether a row meets every limit.
    """
    exclusions = [_find_exclusion(rows, limit, limits, has_fitting=has_fitting) for limit in limits]
    return tuple(sorted(exclusions, key=lambda each: (-each.alone, -each.missed)))


def _find_objectives(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the objectives by which the rows are compared.

    An objective is dropped if no row has a value in it. If no row has values in all remaining objectives, only the objectives
    in which every row has a value are returned.
    """
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
    """Return the labels of the objectives in which a row is best.

    "(tie)" follows the label of latency or quality if several rows tie, because a new measurement could rank them differently.
    """
    return tuple(
        OBJECTIVES[name] + (" (tie)" if len(rows) > 1 and name in ("latency", "quality") else "")
        for name, rows in winners.items()
        if row in rows
    )


def _order(rows: Sequence[Row], maximize: str) -> list[Row]:
    """Return the rows in the order that `maximize` requests (see `recommend`)."""
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
    # A row that misses other limits, too, is named only if no pairing meets all limits: loosening one would not admit this row.
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
