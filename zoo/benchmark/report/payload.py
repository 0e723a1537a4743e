"""Collect the data for the scripts of the report: columns, rows, pairings and plots as compact JSON. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from zoo.benchmark.analysis.pareto import pareto_front
from zoo.benchmark.report.pairings import describe_pairings
from zoo.benchmark.table.columns import Column, chosen_columns, column_named
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.benchmark.trial import block_words
from zoo.common.statistics import TIE, Estimate

__all__ = ["block_labels", "json_for_script", "payload_of", "shared_facts"]

DIMENSIONS = ("run", "mode", "batch", "size", "device", "dtype", "format", "runtime")
"""Columns that describe how a row was measured. The page shows those whose values differ, and has filters for them."""

ESTIMATES = ("latency", "busy", "ratio", "busy_ratio")
"""Columns whose values have an interval. The column has the same name as the attribute of `Row` that contains its values."""

PLOTS = (
    {"name": "memory", "title": "latency and peak memory", "label": "peak memory, MiB", "scale": 2**-20},
    {"name": "parameters", "title": "latency and parameters", "label": "parameters, millions", "scale": 1e-6},
    {"name": "quality", "title": "latency and quality", "label": "mean intersection over union", "scale": 1},
)
"""The columns to plot against the latency. Values are multiplied by `scale`, so that they have the unit in `label`."""


def payload_of(table: Table) -> dict[str, Any]:
    """Return JSON-serializable data for the scripts of the report.

    The data are stored column by column. With a dictionary for each of 5,000 rows, the repeated keys would be most of the file.
    """
    rows = table.rows
    labels = block_labels(table)
    blocks = {block: index for index, block in enumerate(labels)}
    usual = {column.name for column in chosen_columns(rows)} - {column.name for column, _ in shared_facts(table)}
    fronts = {plot["name"]: _find_fronts(rows, column_named(str(plot["name"])), blocks) for plot in PLOTS}
    return {
        "size": len(rows),
        "tie": list(TIE),
        "columns": [_encode_column(column, rows) | {"isShown": column.name in usual} for column in chosen_columns(rows, "all")],
        "dimensions": list(DIMENSIONS),
        "block": [blocks[row.block] for row in rows],
        "blocks": list(labels.values()),
        "baselines": [index for index, row in enumerate(rows) if row.is_baseline],
        "failures": {index: row.failure or "error" for index, row in enumerate(rows) if row.error},
        "distrusted": _find_distrusted(table),
        **describe_pairings(rows),
        "plots": [{**plot, "fronts": fronts[plot["name"]]} for plot in PLOTS if fronts[plot["name"]]],
    }


def json_for_script(data: Any) -> str:
    """Return JSON text for a `<script>` element. The text cannot end the element, even if the name of a model contains HTML.

    All non-ASCII characters, such as U+2028 and U+2029, and the characters `<`, `>` and `&` are escaped.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def shared_facts(table: Table) -> list[tuple[Column, str]]:
    """Return each column of `DIMENSIONS` that has the same value in all rows, and that value as text.

    The page shows these values once, above the table.
    """
    facts = []
    for column in chosen_columns(table.rows):
        cells = {column.cell(row) for row in table.rows}
        if column.name in DIMENSIONS and len(cells) == 1:
            facts.append((column, cells.pop()))
    return facts


def block_labels(table: Table) -> dict[tuple[Any, ...], str]:
    """Return a label for each block (rows with the same run, mode, batch, size and dtype), in the order of the rows.

    A label contains only the values that differ between blocks. If there is only one block, its label contains all values
    except the run.
    """
    words = {row.block: (f"run {row.run}", *block_words(row.block[1:])) for row in table.rows}
    varying = [place for place in range(5) if len({each[place] for each in words.values()}) > 1] or range(1, 5)
    return {block: ", ".join(each[place] for place in varying) for block, each in words.items()}


def _encode_column(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    """Return a column's distinct (cell, value) pairs, and the index of each row's pair.

    For a column in `ESTIMATES`, return the rows' intervals and ties, too.
    """
    pairs = [(column.cell(row), _simplify(column.value(row))) for row in rows]
    indices = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    facts: dict[str, Any] = {"name": column.name, "heading": column.heading, "isNumber": column.is_number}
    facts |= {"entries": list(indices), "at": [indices[pair] for pair in pairs]}
    if column.name in ESTIMATES:
        estimates: list[Estimate | None] = [getattr(row, column.name) for row in rows]
        facts["lows"] = [_simplify(estimate.low) if estimate else None for estimate in estimates]
        facts["highs"] = [_simplify(estimate.high) if estimate else None for estimate in estimates]
        facts["ties"] = [index for index, (cell, _) in enumerate(pairs) if cell.endswith(" tie")]
    return facts


def _simplify(value: Any) -> Any:
    """Return a value for sorting. A float is rounded to seven digits; an empty text, an infinity or NaN becomes None."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if isfinite(value) else None
    return None if value == "" else value


def _find_distrusted(table: Table) -> list[int]:
    """Return the indices of the rows that were measured in a group whose A/A check failed (`Check.is_off`)."""
    off = [check for check in table.checks if check.is_off]
    return [
        index
        for index, row in enumerate(table.rows)
        if not row.is_baseline and any(check.block == row.block and row.name in check.names for check in off)
    ]


def _find_fronts(rows: Sequence[Row], column: Column, blocks: Mapping[tuple[Any, ...], int]) -> dict[int, list[int]]:
    """Return, for each block, the indices of the rows on the Pareto front of latency and a column, the fastest row first."""
    points: dict[int, dict[int, tuple[float, float]]] = {}
    for index, row in enumerate(rows):
        value = column.value(row)
        if row.latency and value is not None and not row.error:
            cost = value if column.smaller_is_better else -value
            points.setdefault(blocks[row.block], {})[index] = (row.latency.median, cost)
    return {block: [list(found)[place] for place in pareto_front(list(found.values()))] for block, found in points.items()}
