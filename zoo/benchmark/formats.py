"""The table as a terminal, a Markdown page, a spreadsheet or a program reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal, TypeAlias, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from zoo.benchmark.statistics import Estimate
from zoo.benchmark.table import COLUMNS, Column, Row, Table
from zoo.rendering import FULL_WIDTH, csv_text, escaped, plain_text, table_row

__all__ = ["FORMATS", "Format", "render", "terminal_view"]

Format: TypeAlias = Literal["table", "markdown", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
GROUP_HEADINGS = ("mode", "batch", "size", "device", "dtype")


def render(table: Table, form: str) -> str:
    """Return the table in one of `FORMATS`."""
    renderers: dict[str, Callable[[Table], str]] = {"table": _text, "markdown": _markdown, "csv": _csv, "json": _json}
    return renderers[form](table)


def terminal_view(table: Table, width: int) -> RenderableType:
    """Return the table for a terminal of this width.

    Where it is narrow, columns with one value throughout move to a line below; where that is not enough, what the rows
    of a group share becomes their heading, and intervals stand below their medians.
    """
    shown, shared = list(COLUMNS), []
    for column in COLUMNS:
        values = {column.cell(row) for row in table.rows}
        if len(values) == 1 and column.heading != "pairing" and _width(table, shown) > width:
            shown.remove(column)
            shared.append(f"{column.heading} {values.pop()}")
    is_narrow = _width(table, shown) > width
    told_by_group = [column for column in shown if column.heading in GROUP_HEADINGS] if is_narrow else []
    shown = [column for column in shown if column not in told_by_group]
    drawn = RichTable(
        title=Text(_title(table)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 0) if is_narrow else (0, 1),
    )
    for column in shown:
        heading = column.heading.replace(" ", "\n") if is_narrow else column.heading
        drawn.add_column(Text(heading), justify="right" if column.is_number else "left", overflow="fold")
    group: object = None
    for row in table.rows:
        if group != row.group:
            if group is not None:
                drawn.add_section()
            if told_by_group:
                said = ", ".join(f"{column.heading} {column.cell(row)}" for column in told_by_group)
                drawn.add_row(Text(said, style="italic"))
        group = row.group
        cells = [column.cell(row) for column in shown]
        style = "red" if row.error else ("dim" if row.is_baseline else "")
        drawn.add_row(*(Text(cell.replace(" [", "\n[") if is_narrow else cell) for cell in cells), style=style)
    lines = [f"All rows: {', '.join(shared)}."] if shared else []
    lines += [*_failures(table), *_legend(table)]
    return Group(drawn, *map(Text, lines))


def _text(table: Table) -> str:
    return plain_text(terminal_view(table, FULL_WIDTH))


def _markdown(table: Table) -> str:
    lines = [f"**{escaped(_title(table))}**", "", table_row([column.heading for column in COLUMNS])]
    lines.append(table_row(["---:" if column.is_number else "---" for column in COLUMNS]))
    lines += [table_row([escaped(column.cell(row)) for column in COLUMNS]) for row in table.rows]
    notes = [*_failures(table), *_legend(table)]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in notes)]) + "\n"


def _csv(table: Table) -> str:
    records = [_record(table, row) for row in table.rows]
    return csv_text(records)


def _json(table: Table) -> str:
    facts = {"run": asdict(table.run), "rows": [_record(table, row) for row in table.rows]}
    return json.dumps(facts, indent=2) + "\n"


def _record(table: Table, row: Row) -> dict[str, Any]:
    """Return a row as flat data; missing values are None."""
    environment = table.run.environment
    return {
        "pairing": row.pairing,
        "mode": row.mode,
        "batch": row.batch,
        "height": row.height,
        "width": row.width,
        "device": row.device,
        "dtype": row.dtype,
        **_fields("latency_ms", row.latency, 1e3),
        "images_per_second": row.images_per_second,
        **_fields("ratio_to_baseline", row.ratio, 1.0),
        "is_tie": row.ratio.is_tie if row.ratio else None,
        "is_baseline": row.is_baseline,
        "peak_mib": None if row.peak_bytes is None else row.peak_bytes / 2**20,
        "parameters": row.parameters,
        "gflops": None if row.flops is None else row.flops / 1e9,
        "licences": row.licences or None,
        "rounds": row.rounds,
        "error": row.error,
        "device_name": environment["device_name"],
        "threads": environment["threads"],
        "torch": environment["versions"]["torch"],
        "zoo": environment["versions"]["segmentation-zoo"],
        "commit": environment["commit"],
        "started": table.run.started,
    }


def _fields(name: str, estimate: Estimate | None, scale: float) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.median * scale, f"{name}_low": estimate.low * scale, f"{name}_high": estimate.high * scale}


def _title(table: Table) -> str:
    environment = table.run.environment
    versions = environment["versions"]
    threads = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return (
        f"{table.run.name}: {environment['device_name']} ({environment['device']}{threads}), torch {versions['torch']}, "
        f"segmentation-zoo {versions['segmentation-zoo']}, {table.run.started[:10]}"
    )


def _legend(table: Table) -> list[str]:
    notes = [f"{column.heading} = {column.legend}." for column in COLUMNS if column.legend]
    peak = (
        "the most that the device's allocator held during a step, with no other model on it"
        if any(row.is_device_peak for row in table.rows)
        else "the most that live tensors hold during a step, from a pass of its own; an allocator needs more"
    )
    return [*notes, f"peak MiB = {peak}.", f"Run {table.run.id} in {table.store}; input: {table.run.config['input']}."]


def _failures(table: Table) -> list[str]:
    return [f"FAILED {row.pairing}, {row.mode}, batch {row.batch}: {row.error}" for row in table.rows if row.error]


def _width(table: Table, columns: list[Column]) -> int:
    return 2 + sum(3 + max(len(column.heading), *(len(column.cell(row)) for row in table.rows)) for column in columns)
