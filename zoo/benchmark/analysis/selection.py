"""Select runs by name, and sort and select the rows of a table. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zoo.benchmark.analysis.facts import find_fact
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.common.choices import CALIBRATION, SEARCH_STAGE
from zoo.common.suggestions import did_you_mean
from zoo.errors import StoreError

__all__ = ["select_rows", "select_runs", "sort_rows"]

LATEST = "latest"
SHOWN_RUNS = 12
"""The largest number of runs that an error message lists."""


def select_runs(store: Store, names: Sequence[str] = ()) -> tuple[int, ...]:
    """Return the numbers of the named runs, without duplicates.

    Args:
        store: the store that contains the runs.
        names: one entry for each run: its number, its name (for the latest run with that name) or "latest". Without entries,
            the latest run is selected. Calibrations and the first stages of searches do not count as the latest run, unless the
            store has no others.

    Raises:
        StoreError: the store contains no runs, or no run for one of the names. The message lists the runs.
    """
    runs = store.runs()
    if not runs:
        raise StoreError(f"{store.path} contains no run yet. Run `zoo bench CONFIG` first.")
    return tuple(dict.fromkeys(_find_run(store, runs, name) for name in names or (LATEST,)))


def sort_rows(rows: Sequence[Row], names: str) -> list[Row]:
    """Return the rows sorted by one or more columns.

    Args:
        rows: the rows to sort.
        names: the columns, separated by commas; the first counts most. A minus before a name (`-quality`) reverses the order
            of that column. Rows without a value come last in either order.

    Raises:
        OptionError: a name is unknown.
    """
    ordered = list(rows)
    # The sort is stable, so the rows are sorted last by the column that counts most.
    for name in reversed([name.strip() for name in names.split(",")]):
        fact = find_fact(name.removeprefix("-"), "--sort")
        known = [row for row in ordered if fact.value(row) is not None]
        unknown = [row for row in ordered if fact.value(row) is None]
        ordered = sorted(known, key=fact.value, reverse=name.startswith("-")) + unknown
    return ordered


def select_rows(table: Table, rows: Sequence[Row]) -> Table:
    """Return the table with only these rows, and with their runs, A/A checks and trivial baselines (`Results.floors`).

    Without rows, all runs and trivial baselines remain.
    """
    runs, blocks = {row.run for row in rows}, {row.block for row in rows}
    return replace(
        table,
        floors=tuple(floor for floor in table.floors if not rows or floor.run in runs),
        rows=tuple(rows),
        runs=tuple(run for run in table.runs if run.id in runs) or table.runs,
        checks=tuple(check for check in table.checks if check.block in blocks),
    )


def _find_run(store: Store, runs: Sequence[StoredRun], name: str) -> int:
    if name == LATEST:
        return next((run.id for run in reversed(runs) if run.name not in (CALIBRATION, SEARCH_STAGE)), runs[-1].id)
    for run in runs:
        if str(run.id) == name:
            return run.id
    named = [run.id for run in runs if run.name == name]
    if named:
        return named[-1]
    hint = did_you_mean(name, {run.name for run in runs})
    listed = [f"  {run.id}  {run.name}  started {run.started}" for run in runs[-SHOWN_RUNS:]]
    if len(runs) > SHOWN_RUNS:
        listed.insert(0, f"  ({len(runs) - SHOWN_RUNS} earlier runs; `zoo runs` lists all)")
    raise StoreError("\n".join([f"{store.path} has no run {name!r}.{hint} Its runs, by number and name:", *listed]))
