"""Convert the benchmark's table to a document, which is shown as text or exported as CSV or JSON. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from zoo.benchmark.environment import format_device
from zoo.benchmark.quality import FLOORS, Floor
from zoo.benchmark.table.columns import Column, chosen_columns
from zoo.benchmark.table.notes import table_notes
from zoo.benchmark.table.rows import Check, Results, Row
from zoo.common.grid import Document, Grid, GridRow, Heading, Line
from zoo.common.statistics import Estimate

__all__ = ["document", "records", "title_of"]

OF_BLOCK = ("mode", "batch", "size", "device", "dtype")
"""Columns that have the same value in all rows of a block (the rows that are compared with one another)."""
SECONDARY = ("licenses", "efficiency", "throughput", "busy_ratio", "rounds", "flops")
"""Columns to leave out, in this order, if the terminal is too narrow to show every cell on one line."""
DROPPED_FIRST = (*SECONDARY, "quality_difference", "parameters", "memory", "p90")
"""Columns to leave out, in this order, if the terminal is too narrow even when cells are folded onto several lines."""


def document(table: Results, columns: Sequence[Column] | None = None, *, legend: bool = False) -> Document:
    """Return the table as a document. CSV and JSON contain all values, whichever columns are shown as text.

    Args:
        table: the results to show.
        columns: the columns to show; by default the default columns.
        legend: whether to explain each column below the table.
    """
    chosen = list(columns or chosen_columns(table.rows))
    return Document(
        parts=(
            Line(text=title_of(table), kind="title", style="bold"),
            _grid(table, chosen),
            *(Line(text=note, kind="item") for note in table_notes(table, chosen, legend=legend)),
        ),
        records=partial(records, table),
        facts=partial(_facts, table),
    )


def _grid(table: Results, columns: Sequence[Column]) -> Grid:
    sections, last_rows = [], {row.block: row for row in table.rows}
    for block, group in groupby(table.rows, attrgetter("block")):
        rows = list(group)
        # A sorted table may have a block's rows in several sections. The block's warnings follow only the last of them.
        is_last = rows[-1] is last_rows[block]
        failed_checks = [check for check in table.checks if is_last and check.block == block and check.is_off]
        sections.append((*(_row(row, columns) for row in rows), *(_warning(check, columns) for check in failed_checks)))
    if table.floors and any(column.name == "quality" for column in columns):
        sections.append(tuple(_floor_row(floor, columns) for floor in table.floors))
    return Grid(
        headings=tuple(map(_heading, columns)),
        sections=tuple(sections),
        more="`zoo table --columns` selects columns, and --format markdown shows all",
    )


def _heading(column: Column) -> Heading:
    return Heading(
        text=column.heading,
        is_number=column.is_number,
        can_move=column.name != "pairing",
        is_of_section=column.name in OF_BLOCK,
        drop_order=DROPPED_FIRST.index(column.name) if column.name in DROPPED_FIRST else None,
        is_secondary=column.name in SECONDARY,
    )


def _row(row: Row, columns: Sequence[Column]) -> GridRow:
    style = "red" if row.error else ("dim" if row.is_baseline else "")
    return GridRow(cells=tuple(column.cell(row) for column in columns), style=style)


def _warning(check: Check, columns: Sequence[Column]) -> GridRow:
    """Return the row that warns that the control, a copy of the baseline, did not take the same time as the baseline."""
    cells = {"pairing": "WARNING: baseline copy", "ratio": check.ratio.format()}
    return GridRow(cells=tuple(cells.get(column.name, "") for column in columns), style="yellow", is_extra=True)


def _floor_row(floor: Floor, columns: Sequence[Column]) -> GridRow:
    """Return the row with the score of a trivial baseline, which is not a neural network."""
    cells = {"pairing": floor.name, "quality": f"{floor.miou:.3f}", "run": str(floor.run)}
    return GridRow(cells=tuple(cells.get(column.name, "") for column in columns), style="dim", is_extra=True)


def records(table: Results) -> list[dict[str, Any]]:
    """Return each row as a flat dictionary of all its values; missing values are None."""
    return [_record(table, row) for row in table.rows]


def title_of(table: Results) -> str:
    """Return one line for each run: its name, device, versions and date."""
    return "\n".join(
        f"{run.name}: {format_device(run.environment)}, "
        f"torch {run.environment['versions']['torch']}, segmentation-zoo {run.environment['versions']['segmentation-zoo']}, "
        f"{run.started[:10]}"
        for run in table.runs
    )


def _facts(table: Results) -> dict[str, Any]:
    checks = [{"block": list(check.block), "ratio": asdict(check.ratio), "is_off": check.is_off} for check in table.checks]
    return {
        "runs": [asdict(run) for run in table.runs],
        "checks": checks,
        "best_rates": dict(table.rates),
        "rows": [
            record | {"plan": row.plan, "trainings": _trainings(row)}
            for record, row in zip(records(table), table.rows, strict=True)
        ],
    }


def _record(table: Results, row: Row) -> dict[str, Any]:
    run = next(run for run in table.runs if run.id == row.run)
    environment = run.environment
    parts = row.parts or {}
    return {
        "run": row.run,
        "key": row.key,
        "pairing": row.name,
        "encoder": row.encoder or None,
        "decoder": row.decoder or None,
        "mode": row.mode,
        "batch": row.batch,
        "height": row.height,
        "width": row.width,
        "device": row.device,
        "dtype": row.dtype,
        "memory_format": row.memory_format,
        "runtime": row.runtime,
        **_fields("latency_ms", row.latency, 1e3),
        "latency_ms_p90": None if row.p90 is None else row.p90 * 1e3,
        **_fields("busy_ms", row.busy, 1e3),
        "images_per_second": row.images_per_second,
        **_fields("ratio_to_baseline", row.ratio, 1.0),
        "is_tie": row.ratio.is_tie if row.ratio else None,
        **_fields("busy_ratio_to_baseline", row.busy_ratio, 1.0),
        "is_baseline": row.is_baseline,
        "rounds": row.rounds,
        "stopped": row.stopped,
        "efficiency": row.efficiency,
        "gflops_per_second": None if row.flops_per_second is None else row.flops_per_second / 1e9,
        "peak_mib": _in_mib(row.peak_bytes),
        "live_mib": _in_mib(row.live_bytes),
        "allocated_mib": _in_mib(row.allocated_bytes),
        "rss_mib": _in_mib(row.rss_bytes),
        "parameters": row.parameters,
        **{f"parameters_{part}": parts.get(part) for part in ("encoder", "adapters", "decoder", "head")},
        "gflops": None if row.flops is None else row.flops / 1e9,
        "build_seconds": row.build_seconds,
        "first_call_seconds": row.first_seconds,
        "smaller_batch": row.smaller.batch if row.smaller else None,
        "smaller_batch_images_per_second": row.smaller.images_per_second if row.smaller else None,
        "quality_data": row.data or None,
        "quality": row.miou,
        "quality_deviation": row.quality.deviation if row.quality else None,
        "quality_seeds": len(row.quality.seeds) if row.quality else None,
        **_difference_fields(row),
        **{f"{_key(name)}_miou": _floor(table, row.run, name) for name in FLOORS},
        "licenses": row.licenses or None,
        "flags": "; ".join(row.flags) or None,
        "failure": row.failure,
        "error": row.error,
        "device_name": row.device_name,
        "threads": environment["threads"],
        "torch": environment["versions"]["torch"],
        "zoo": environment["versions"]["segmentation-zoo"],
        "commit": environment["commit"],
        "started": run.started,
    }


def _trainings(row: Row) -> list[dict[str, Any]]:
    """Return an item for each seed with which a row's model was trained: the score of every class, or the error."""
    quality = row.quality
    if quality is None:
        return []
    done = zip(quality.seeds, quality.miou, quality.iou, quality.steps, quality.seconds, strict=True)
    return [
        {"seed": seed, "miou": miou, "iou": dict(zip(quality.classes, iou, strict=True)), "steps": steps, "seconds": seconds}
        for seed, miou, iou, steps, seconds in done
    ] + [{"seed": seed, "error": error} for seed, error in quality.failures.items()]


def _difference_fields(row: Row) -> dict[str, Any]:
    difference = row.quality_difference
    if difference is None or row.is_baseline:
        return dict.fromkeys(f"quality_difference{end}" for end in ("", "_low", "_high", "_is_tie"))
    low, high = (None if math.isinf(end) else end for end in (difference.low, difference.high))
    facts = {"": difference.mean, "_low": low, "_high": high, "_is_tie": difference.is_tie}
    return {f"quality_difference{end}": value for end, value in facts.items()}


def _key(name: str) -> str:
    return name.replace("-", "").replace(" ", "_")


def _floor(table: Results, run: int, name: str) -> float | None:
    return next((floor.miou for floor in table.floors if floor.run == run and floor.name == name), None)


def _in_mib(value: int | None) -> float | None:
    return None if value is None else value / 2**20


def _fields(name: str, estimate: Estimate | None, scale: float) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.median * scale, f"{name}_low": estimate.low * scale, f"{name}_high": estimate.high * scale}
