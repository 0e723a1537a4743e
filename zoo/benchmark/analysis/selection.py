"""Which runs and which rows a reader asks for: chosen by name, filtered, sorted, the Pareto-optimal ones. Torch-free.

A condition is `NAME OP VALUE`, such as `latency<20ms`; several, repeated or joined by " and ", all hold.

| NAME | OP | VALUE |
| --- | --- | --- |
| `latency`, `p90`, `busy` | `=` `!=` `<` `<=` `>` `>=` | ms, or with a suffix: `us` `ms` `s` |
| `build`, `first` | the same | seconds, or with such a suffix |
| `memory`, `live`, `allocated`, `rss` | the same | MiB, or `B` `KiB` `MiB` `GiB` `kB` `MB` `GB` |
| `parameters`, `parts` (the encoder's) | the same | millions, or `k` `M` `G` |
| `flops` | the same | GFLOPs, or `M` `G` `T` |
| `efficiency` | the same | percent |
| `ratio`, `busy_ratio`, `quality`, `quality_difference` | the same | a number, or with `%` |
| `run`, `batch`, `throughput`, `rounds`, `fits` | the same | a number |
| `size` | the same, and `~` | `256x320`, or `256` for a square; `<` and `>` go by the number of pixels |
| `pairing`, `encoder`, `decoder`, `licences`, `flags`, `failure` | `=` `!=` `~` | text; `~` a glob or a part, in any case |
| `mode`, `data`, `device`, `device_name`, `dtype`, `format`, `runtime`, `role` | the same | the same |
| `tie` | `=` `!=` | `yes` or `no`: whether the row cannot be told from its baseline |
| any | `=` `!=` | `none`: what was not measured, or does not apply |

`==` is `=`. A number equals another if they agree in as many digits as are given: 14.87 ms is `latency=14.9`. What was not
measured meets no comparison, `!=` neither, but `=none`. A value may stand in quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from zoo.benchmark.analysis.fields import Fact, fact_named, number_of, told_quantity
from zoo.benchmark.analysis.pareto import pareto_front
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.columns import COLUMNS, Column
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.common.format_names import format_names
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, StoreError
from zoo.registry.image_sizes import read_size

__all__ = ["chosen_runs", "filtered", "nothing_left", "pareto", "sorted_by"]

LATEST = "latest"
SHOWN_RUNS = 12
"""How many runs an error lists."""

COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(==|!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
JOINED = re.compile(r"\s+and\s+(?=[A-Za-z_]\w*\s*(?:==|!=|<=|>=|=|<|>|~))")


def chosen_runs(store: Store, asked: Sequence[str] = ()) -> tuple[int, ...]:
    """Return the numbers of the runs asked for, each by its number, its name (the latest of it) or "latest".

    Args:
        store: where they are.
        asked: nothing for the latest run.

    Raises:
        StoreError: the store has no run, or none of that number or name; the message lists what there is.
    """
    runs = store.runs()
    if not runs:
        raise StoreError(f"{store.path} holds no run yet; `zoo bench CONFIG` measures one.")
    return tuple(dict.fromkeys(_chosen(store, runs, name) for name in asked or (LATEST,)))


def filtered(table: Table, conditions: Sequence[str]) -> Table:
    """Return the table with the rows alone that meet every condition; this module's docstring says how one is written.

    Raises:
        OptionError: a condition that cannot be read, with an unknown name, or a value that the name cannot have.
    """
    tests = [test for _, test in _tests(conditions)]
    return _with_rows(table, [row for row in table.rows if all(test(row) for test in tests)])


def nothing_left(table: Table, conditions: Sequence[str]) -> str:
    """Return why no row meets all conditions, in words: how many meet each, and what there is where none does."""
    lines = [f"No row meets every condition; of the {len(table.rows)}"]
    for condition, test in _tests(conditions):
        met = sum(test(row) for row in table.rows)
        told = f"  {condition}: {met} meet it"
        lines.append(told if met else f"  {condition}: none meets it; {_what_there_is(table.rows, _parsed(condition)[0])}")
    return "\n".join(lines)


def sorted_by(table: Table, names: str) -> Table:
    """Return the table with its rows in another order: by a column, or by several, by commas, the first counting most.

    A minus before a name (`-quality`) turns its order round; what was not measured comes last either way.

    Raises:
        OptionError: an unknown name.
    """
    rows = list(table.rows)
    for name in reversed([name.strip() for name in names.split(",")]):
        fact = fact_named(name.removeprefix("-"), "--sort")
        known = [row for row in rows if fact.value(row) is not None]
        unknown = [row for row in rows if fact.value(row) is None]
        rows = sorted(known, key=fact.value, reverse=name.startswith("-")) + unknown
    return _with_rows(table, rows)


def pareto(table: Table, names: str) -> Table:
    """Return the table with the rows alone that no other row of their block beats: as good in all objectives, better in one.

    Rows that failed, or lack one of the values, are left out: nothing can be said of them.

    Args:
        table: the rows.
        names: columns with a better end, by commas, such as "latency,memory".

    Raises:
        OptionError: an unknown column, one that is no merit, one that was measured in none of these rows, or no row with all.
    """
    objectives = [_objective(table, name.strip()) for name in names.split(",")]
    signs = [1 if column.smaller_is_better else -1 for column in objectives]
    blocks: dict[Any, list[tuple[int, tuple[float, ...]]]] = {}
    for place, row in enumerate(table.rows):
        values = [column.value(row) for column in objectives]
        if row.failure is None and None not in values:
            costs = tuple(sign * value for sign, value in zip(signs, values, strict=True))
            blocks.setdefault(row.block, []).append((place, costs))
    kept = {found[index][0] for found in blocks.values() for index in pareto_front([costs for _, costs in found])}
    if not kept:
        raise OptionError(f"--pareto: no row has a value of all of {names}.")
    return _with_rows(table, [row for place, row in enumerate(table.rows) if place in kept])


def _chosen(store: Store, runs: Sequence[StoredRun], asked: str) -> int:
    if asked == LATEST:
        return runs[-1].id
    if asked in (known := {str(run.id): run.id for run in runs}):
        return known[asked]
    named = [run.id for run in runs if run.name == asked]
    if named:
        return named[-1]
    hint = did_you_mean(asked, {run.name for run in runs})
    listed = [f"  {run.id}  {run.name}  started {run.started}" for run in runs[-SHOWN_RUNS:]]
    if len(runs) > SHOWN_RUNS:
        listed.insert(0, f"  ({len(runs) - SHOWN_RUNS} earlier ones; `zoo runs` lists all)")
    raise StoreError("\n".join([f"{store.path} has no run {asked!r}.{hint} There are, by number or name:", *listed]))


def _with_rows(table: Table, rows: Sequence[Row]) -> Table:
    """Return the table with these rows, and the runs and checks that have to do with them; every run where no row is left."""
    ids, blocks = {row.run for row in rows}, {row.block for row in rows}
    return replace(
        table,
        floors=tuple(floor for floor in table.floors if not rows or floor.run in ids),
        rows=tuple(rows),
        runs=tuple(run for run in table.runs if run.id in ids) or table.runs,
        checks=tuple(check for check in table.checks if check.block in blocks),
    )


def _objective(table: Table, name: str) -> Column:
    objectives = {column.name: column for column in COLUMNS if column.smaller_is_better is not None}
    if name not in objectives:
        is_column = name in (column.name for column in COLUMNS)
        found = f"{name!r} is a column, but has no better end" if is_column else f"there is no column {name!r}"
        raise OptionError(f"--pareto: {found}.{did_you_mean(name, objectives)} Choose of: {', '.join(objectives)}.")
    if all(objectives[name].value(row) is None for row in table.rows if row.failure is None):
        runs = ", ".join(f"{run.id} ({run.name})" for run in table.runs)
        raise OptionError(f"--pareto: {name} is not measured in these rows of run {runs}; leave it out, or choose another run.")
    return objectives[name]


def _tests(conditions: Sequence[str]) -> Iterator[tuple[str, Callable[[Row], bool]]]:
    for condition in (part.strip() for given in conditions for part in JOINED.split(given)):
        yield condition, _test(*_parsed(condition), condition)


def _parsed(condition: str) -> tuple[Fact, str, str]:
    match = COMPARISON.fullmatch(condition)
    if match is None or not match[3].strip():
        raise OptionError(
            f"--where {condition!r} is no condition: write NAME OP VALUE with one of = != < <= > >= ~, such as "
            "'latency<20ms' or 'encoder~resnet*'."
        )
    value = match[3].strip()
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return fact_named(match[1], "--where"), match[2].replace("==", "="), value[1:-1] if is_quoted else value


def _test(fact: Fact, sign: str, text: str, condition: str) -> Callable[[Row], bool]:
    where = f"--where {condition!r}"
    if text.lower() == "none" and sign in ("=", "!="):
        return lambda row: (fact.value(row) is None) is (sign == "=")
    allowed = {"number": ("=", "!=", *COMPARED), "text": ("=", "!=", "~"), "yes or no": ("=", "!=")}.get(fact.kind)
    if allowed and sign not in allowed:
        told = "a number" if fact.kind == "number" else fact.kind
        raise OptionError(f"{where}: {fact.name} is {told} and goes with {' '.join(allowed)}; found {sign}.")
    test = _compared(fact, sign, text, where)
    return lambda row: fact.value(row) is not None and test(row)


def _compared(fact: Fact, sign: str, text: str, where: str) -> Callable[[Row], bool]:
    """Return the test of a row that has the value."""
    if sign == "~":
        pattern = text.lower() if any(wild in text for wild in "*?[") else f"*{text.lower()}*"
        return lambda row: fnmatchcase(_text(fact, row).lower(), pattern)
    if fact.kind == "size":
        height, width = read_size(text, where)
        if sign in COMPARED:
            return lambda row: COMPARED[sign](row.height * row.width, height * width)
        return lambda row: ((row.height, row.width) == (height, width)) is (sign == "=")
    if fact.kind == "number":
        value, digits, size = number_of(fact, text, where)
        if sign in COMPARED:
            return lambda row: COMPARED[sign](fact.value(row), value)
        told = f"{value / size:.{digits}f}"
        return lambda row: (f"{fact.value(row) / size:.{digits}f}" == told) is (sign == "=")
    if fact.kind == "yes or no":
        if text.lower() not in ("yes", "no"):
            raise OptionError(f"{where}: {fact.name} is yes or no; found {text!r}.")
        return lambda row: (fact.value(row) is (text.lower() == "yes")) is (sign == "=")
    return lambda row: (_text(fact, row) == text) is (sign == "=")


def _text(fact: Fact, row: Row) -> str:
    return f"{row.height}x{row.width}" if fact.kind == "size" else str(fact.value(row))


def _what_there_is(rows: Sequence[Row], fact: Fact) -> str:
    found = [row for row in rows if fact.value(row) is not None]
    if not found:
        return f"{fact.name} is known of no row"
    if fact.kind == "number":
        low, high = (told_quantity(fact.name, end([fact.value(row) for row in found])) for end in (min, max))
        return f"{fact.name} goes from {low} to {high}"
    names = list(dict.fromkeys({True: "yes", False: "no"}.get(fact.value(row), _text(fact, row)) for row in found))
    return f"{fact.name} is one of: {format_names(names, SHOWN_RUNS)}"
