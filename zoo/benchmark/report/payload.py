"""What the page's scripts are given: columns, rows, pairings and plots, compact, in JSON that no name can end. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

from zoo.benchmark.report.fronts import PLOTS, fronts_of
from zoo.benchmark.report.pairings import PairingFacts
from zoo.benchmark.table.columns import Column, chosen_columns
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.benchmark.trial import block_words
from zoo.common.statistics import TIE, Estimate

__all__ = ["DIMENSIONS", "block_labels", "json_for_script", "payload_of", "shared_facts"]

DIMENSIONS = ("run", "mode", "batch", "size", "device", "dtype", "format", "runtime")
"""Columns that say what was done, not what came of it: shown, and filtered by, where there is more than one value."""

ESTIMATES = ("latency", "busy", "ratio", "busy_ratio")
"""Columns whose values have an interval; the row's field has the same name."""


def payload_of(table: Table) -> dict[str, Any]:
    """Return plain data for the scripts: by column, since names of facts repeated 5,000 times are most of a file."""
    rows = table.rows
    labels = block_labels(table)
    blocks = {block: place for place, block in enumerate(labels)}
    pairings = PairingFacts(rows)
    usual = {column.name for column in chosen_columns(table.rows)} - {column.name for column, _ in shared_facts(table)}
    return {
        "size": len(rows),
        "tie": list(TIE),
        "columns": [_column(column, rows, column.name in usual) for column in chosen_columns(table.rows, "all")],
        "dimensions": list(DIMENSIONS),
        "pairing": pairings.places,
        "block": [blocks[row.block] for row in rows],
        "blocks": list(labels.values()),
        "baselines": [index for index, row in enumerate(rows) if row.is_baseline],
        "failures": {index: row.failure or "error" for index, row in enumerate(rows) if row.error},
        "distrusted": _distrusted(table),
        "pairings": pairings.pairings,
        "plans": pairings.plans,
        "routes": pairings.routes,
        "plots": _plots(rows, blocks),
    }


def json_for_script(data: Any) -> str:
    """Return JSON that stays inside its `<script>`, whatever a plugin calls its models.

    Everything beyond ASCII is escaped, U+2028 and U+2029 among it, and so are the three signs that HTML minds.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def shared_facts(table: Table) -> list[tuple[Column, str]]:
    """Return the dimensions that are the same in every row, each with its cell; the page says them once."""
    found = []
    for column in chosen_columns(table.rows):
        cells = {column.cell(row) for row in table.rows}
        if column.name in DIMENSIONS and len(cells) == 1:
            found.append((column, cells.pop()))
    return found


def block_labels(table: Table) -> dict[tuple[Any, ...], str]:
    """Return what tells the blocks apart, in words, in the order of their first row; of a single one, all there is to say."""
    told = {row.block: (f"run {row.run}", *block_words(row.block[1:])) for row in table.rows}
    varying = [place for place in range(5) if len({words[place] for words in told.values()}) > 1] or range(1, 5)
    return {block: ", ".join(words[place] for place in varying) for block, words in told.items()}


def _column(column: Column, rows: Sequence[Row], is_shown: bool) -> dict[str, Any]:
    cells = [column.cell(row) for row in rows]
    values = [_plain(column.value(row)) for row in rows]
    facts: dict[str, Any] = {"name": column.name, "heading": column.heading, "isNumber": column.is_number, "isShown": is_shown}
    entries = list(dict.fromkeys(zip(cells, values, strict=True)))
    if len(entries) * 2 < len(rows):
        places = {entry: place for place, entry in enumerate(entries)}
        facts |= {"entries": entries, "at": [places[entry] for entry in zip(cells, values, strict=True)]}
    else:
        facts |= {"cells": cells, "values": values}
    if column.name in ESTIMATES:
        estimates: list[Estimate | None] = [getattr(row, column.name) for row in rows]
        facts["lows"] = [_plain(estimate.low) if estimate else None for estimate in estimates]
        facts["highs"] = [_plain(estimate.high) if estimate else None for estimate in estimates]
        if column.name.endswith("ratio"):
            facts["ties"] = [
                index
                for index, (row, estimate) in enumerate(zip(rows, estimates, strict=True))
                if estimate and estimate.is_tie and not row.is_baseline and not row.error
            ]
    return facts


def _plain(value: Any) -> Any:
    """Return a value as the scripts sort it: what says nothing is None, and seven digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if isfinite(value) else None
    return None if value == "" else value


def _distrusted(table: Table) -> list[int]:
    """Return the rows that were measured beside a baseline that did not agree with itself."""
    off = [check for check in table.checks if check.is_off]
    return [
        index
        for index, row in enumerate(table.rows)
        if not row.is_baseline and any(check.block == row.block and row.name in check.names for check in off)
    ]


def _plots(rows: Sequence[Row], blocks: dict[tuple[Any, ...], int]) -> list[dict[str, Any]]:
    found = []
    for plot in PLOTS:
        fronts = fronts_of(rows, plot)
        if fronts:
            found.append(
                {
                    "name": plot.name,
                    "title": plot.title,
                    "label": plot.label,
                    "scale": plot.scale,
                    "fronts": {blocks[block]: front for block, front in fronts.items()},
                }
            )
    return found
