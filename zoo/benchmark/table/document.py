"""Convert the benchmark's table to a document, which is shown as text or exported as CSV or JSON. Torch-free."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from zoo.benchmark.environment import format_device
from zoo.benchmark.quality import FLOORS, Floor, format_budget
from zoo.benchmark.table.columns import Column, chosen_columns
from zoo.benchmark.table.quality import data_content, data_names
from zoo.benchmark.table.rows import Check, Results, Row
from zoo.benchmark.trial import format_block
from zoo.common.grid import Document, Grid, GridRow, Heading, Line
from zoo.common.statistics import CONFIDENCE, SCORE_TIE, Estimate

__all__ = ["document", "intervals_note", "misses_by_chance", "peak_legend", "quality_notes", "records", "title_of"]

OF_BLOCK = ("mode", "batch", "size", "device", "dtype")
"""Columns that have the same value in all rows of a block (the rows that are compared with one another)."""
SECONDARY = ("licenses", "efficiency", "throughput", "busy_ratio", "rounds", "flops")
"""Columns to leave out, in this order, if the terminal is too narrow to show every cell on one line."""
DROPPED_FIRST = (*SECONDARY, "quality_difference", "parameters", "memory", "p90")
"""Columns to leave out, in this order, if the terminal is too narrow even when cells are folded onto several lines."""

MANY_CHECKS = 5
"""If more than this number of A/A checks of a block are not off, one note tells of all of them."""
FEW_SEEDS = 5
"""With fewer seeds than this, the intervals of differences in mIoU are so wide that a note says so."""


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
            *(Line(text=note, kind="item") for note in _notes(table, chosen, legend)),
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


def _notes(table: Results, columns: Sequence[Column], legend: bool) -> list[str]:
    notes = [f"FAILED {row.name}, {format_block(row.block[1:])}: {row.error}" for row in table.rows if row.error]
    notes += _flag_notes([row for row in table.rows if not row.error])
    notes += _check_notes(table.checks)
    if legend:
        notes += _legend(table, columns)
    else:
        notes.append("--legend explains the columns.")
    if any(column.name == "quality" for column in columns):
        notes += [f"{note}." for note in quality_notes(table)]
    runs = ", ".join(f"run {run.id} (input: {run.config['input']}, classes: {run.config['classes']})" for run in table.runs)
    return [*notes, f"From {table.store}: {runs}."]


def _flag_notes(rows: Sequence[Row]) -> list[str]:
    """Return a line for each flag (a warning) that all rows have, and a line for each row with further flags."""
    shared = [flag for flag in (rows[0].flags if len(rows) > 1 else ()) if all(flag in row.flags for row in rows)]
    of_rows = ((row, [flag for flag in row.flags if flag not in shared]) for row in rows)
    return [
        *(f"All rows: {flag}." for flag in shared),
        *(f"{row.name}, {format_block(row.block[1:])}: {'; '.join(own)}." for row, own in of_rows if own),
    ]


def _legend(table: Results, columns: Sequence[Column]) -> list[str]:
    notes = [f"{column.heading} = {column.legend}." for column in columns if column.legend]
    if any(column.name == "memory" for column in columns):
        notes.append(f"peak MiB = {peak_legend(table)}.")
    if any(column.name == "efficiency" for column in columns):
        notes += [f"best rate in {dtype}: {rate}." for dtype, rate in table.rates.items()]
    return [*notes, intervals_note(table)]


def peak_legend(table: Results) -> str:
    """Return the legend of the peak memory, which is measured on an accelerator, but computed for the CPU."""
    if any(row.allocated_bytes is not None for row in table.rows):
        return "the peak size of the row's tensors on the accelerator, as counted by its allocator"
    return "the peak size of all live tensors during a step, computed and not measured; an allocator needs more"


def intervals_note(table: Results) -> str:
    """Return a sentence that states the confidence level of the intervals."""
    looks = any(isinstance(run.config.get("rounds"), dict) for run in table.runs)
    ended = ", even if a check of the intervals ended the rounds (the level of each check is higher)" if looks else ""
    return f"Each interval has a confidence level of 95 %{ended}."


def quality_notes(table: Results) -> list[str]:
    """Return a note on the training data of each run, and on the budget for training each model.

    If the models of two runs were not, or perhaps not, trained on the same data, a warning follows.
    """
    notes = []
    names = data_names(table.runs)
    for run in table.runs:
        config = run.config.get("quality")
        if config:
            qualities = [row.quality for row in table.rows if row.run == run.id and row.quality]
            which = f"run {run.id}: " if len(table.runs) > 1 else ""
            budget = format_budget(config, qualities)
            notes.append(
                f"{which}mIoU on the test split of {names[run.id]}: {budget}, {config['seeds']} seeds; the look-up by color "
                "and the majority class are not neural networks, so every model should score above them"
            )
    if note := _note_on_few_seeds(table.rows):
        notes.append(note)
    if len({data_content(run) for run in table.runs if run.id in names}) > 1:
        data = "; ".join(f"run {run}: {name}" for run, name in names.items())
        notes.append(
            f"WARNING: these runs trained on different data, or on data that cannot be shown to be the same ({data}), so their "
            "mIoU cannot be compared"
        )
    return notes


def _note_on_few_seeds(rows: Sequence[Row]) -> str:
    """Return how large a difference in mIoU must be to be told from chance, if a model has few seeds; "" otherwise."""
    compared = [row for row in rows if row.quality and row.quality_difference and not row.is_baseline]
    few = min((len(row.quality.seeds) for row in compared if row.quality), default=FEW_SEEDS)
    if few >= FEW_SEEDS:
        return ""
    halves = [row.quality_difference.half_width for row in compared if row.quality_difference]
    finite = [half for half in halves if not math.isinf(half)]
    if few == 1 or not finite:
        return "With a single seed, no difference in mIoU can be told from chance; train with at least five seeds"
    return (
        f"With {few} seeds, only differences in mIoU of about {statistics.median(finite) + SCORE_TIE:.2f} or more can be told "
        "from chance; train with at least five seeds to compare more precisely"
    )


def _check_notes(checks: Sequence[Check]) -> list[str]:
    """Return a note for each A/A check. If there are many in a block, those that are not off share one note."""
    notes = []
    for block in dict.fromkeys(check.block for check in checks):
        of_block = [check for check in checks if check.block == block]
        quiet = [check for check in of_block if not check.is_off]
        notes += [_format_check(check) for check in of_block if check.is_off or len(quiet) <= MANY_CHECKS]
        if len(quiet) > MANY_CHECKS:
            medians = [check.ratio.median for check in quiet]
            notes.append(
                f"A/A checks, {format_block(block[1:])}: in {len(quiet)} of {len(of_block)} groups, the interval of the second "
                f"copy's ratio to the baseline contains 1, and its median is {min(medians):.3f} to {max(medians):.3f}. By "
                f"chance, about {misses_by_chance(len(of_block))} intervals exclude 1."
            )
    return notes


def misses_by_chance(checks: int) -> str:
    """Return how many of the intervals of this number of A/A checks exclude the true ratio by chance, as text."""
    return f"{(1 - CONFIDENCE) * checks:.1g}" if checks < 20 else f"{(1 - CONFIDENCE) * checks:.0f}"


def _format_check(check: Check) -> str:
    result = (
        f"A/A check, {format_block(check.block[1:])}: the second copy of the baseline took {check.ratio.format()} times as "
        "long as the baseline"
    )
    if not check.is_off:
        return f"{result}."
    measured = f" (measured with {', '.join(check.names)})" if check.names else ""
    return f"WARNING: {result}{measured}. Differences of this size mean nothing here."
