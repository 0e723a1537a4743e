"""The table's columns: what a person reads in a cell, what a program reads, and what the legend says of it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.benchmark.row import Row, Table
from zoo.benchmark.statistics import TIE, Estimate
from zoo.errors import OptionError
from zoo.hints import did_you_mean

__all__ = ["COLUMNS", "DEFAULT_COLUMNS", "Column", "chosen_columns", "column_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        name: what `--columns`, `--sort` and `--where` call it.
        heading: what stands above it.
        cell: how a row's cell is written for a person.
        value: what it is sorted and compared by; None where it was not measured.
        smaller_is_better: None for what is no merit.
        legend: what the table's foot says of it.
    """

    name: str
    heading: str
    cell: Callable[[Row], str]
    value: Callable[[Row], Any]
    is_number: bool = True
    smaller_is_better: bool | None = None
    legend: str = ""


def chosen_columns(table: Table, names: str | None = None) -> list[Column]:
    """Return the columns to show: those named, by commas; "all"; or the usual ones, without those that say nothing here.

    Raises:
        OptionError: an unknown name.
    """
    if names is None:
        return [column for column in COLUMNS if column.name in DEFAULT_COLUMNS and _says_something(column, table.rows)]
    if names.strip() == "all":
        return [column for column in COLUMNS if _says_something(column, table.rows)]
    return [column_named(name.strip()) for name in names.split(",")]


def column_named(name: str) -> Column:
    """Return a column by its name.

    Raises:
        OptionError: there is none of that name.
    """
    for column in COLUMNS:
        if column.name == name:
            return column
    known = [column.name for column in COLUMNS]
    raise OptionError(f"The table has no column {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")


USUAL = ("-", "contiguous", "eager")
"""What a column need not be shown for."""


def _says_something(column: Column, rows: Sequence[Row]) -> bool:
    if column.name == "run":
        return len({row.run for row in rows}) > 1
    return column.name == "pairing" or any(column.cell(row) not in USUAL for row in rows)


def _estimate(estimate: Estimate | None, scale: float = 1.0, digits: int = 1) -> str:
    return estimate.told(scale, digits) if estimate else "-"


def _ratio_cell(row: Row, estimate: Estimate | None) -> str:
    if row.is_baseline:
        return "-" if row.error else "1 (baseline)"
    return _estimate(estimate, digits=2) + (" tie" if estimate and estimate.is_tie else "")


def _optional(value: float | None, scale: float, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}{unit}"


def _median(estimate: Estimate | None) -> float | None:
    return estimate.median if estimate else None


def _rounds_cell(row: Row) -> str:
    if not row.rounds:
        return "0"
    reached = row.ratio.precision if row.ratio and not row.is_baseline else row.latency.precision if row.latency else None
    told = {"precise": "precise", "limit": "most", "budget": "time", "fixed": "fixed", None: "unfinished"}[row.stopped]
    return f"{row.rounds} {told}" + (f" ±{100 * reached:.1f} %" if reached is not None else "")


def _parts_cell(row: Row) -> str:
    if not row.parts:
        return "-"
    return " + ".join(f"{row.parts[part] / 1e6:,.2f}" for part in ("encoder", "adapters", "decoder", "head"))


def _smaller_cell(row: Row) -> str:
    return f"{row.smaller.batch} ({row.smaller.images_per_second:.1f} images/s)" if row.smaller else "-"


def _mib(name: str, heading: str, fact: str, legend: str) -> Column:
    def value(row: Row) -> Any:
        return getattr(row, fact)

    def cell(row: Row) -> str:
        return _optional(value(row), 2**-20, 0)

    return Column(name=name, heading=heading, cell=cell, value=value, smaller_is_better=True, legend=legend)


COLUMNS = (
    Column(name="run", heading="run", cell=lambda row: str(row.run), value=lambda row: row.run),
    Column(name="pairing", heading="pairing", cell=lambda row: row.name, value=lambda row: row.name, is_number=False),
    Column(
        name="mode",
        heading="mode",
        cell=lambda row: row.mode,
        value=lambda row: row.mode,
        is_number=False,
        legend="inference: forward; training: forward, loss, backward, AdamW",
    ),
    Column(name="batch", heading="batch", cell=lambda row: str(row.batch), value=lambda row: row.batch),
    Column(
        name="size",
        heading="size",
        cell=lambda row: f"{row.height}x{row.width}",
        value=lambda row: row.height * row.width,
    ),
    Column(name="device", heading="device", cell=lambda row: row.device, value=lambda row: row.device, is_number=False),
    Column(name="dtype", heading="dtype", cell=lambda row: row.dtype, value=lambda row: row.dtype, is_number=False),
    Column(
        name="format",
        heading="format",
        cell=lambda row: row.memory_format,
        value=lambda row: row.memory_format,
        is_number=False,
    ),
    Column(name="runtime", heading="runtime", cell=lambda row: row.runtime, value=lambda row: row.runtime, is_number=False),
    Column(
        name="latency",
        heading="latency ms",
        cell=lambda row: _estimate(row.latency, 1e3),
        value=lambda row: _median(row.latency),
        smaller_is_better=True,
        legend="median of the rounds by the clock, with its interval",
    ),
    Column(
        name="p90",
        heading="p90 ms",
        cell=lambda row: _optional(row.p90, 1e3, 1),
        value=lambda row: row.p90,
        smaller_is_better=True,
        legend="nine in ten calls took less",
    ),
    Column(
        name="busy",
        heading="busy ms",
        cell=lambda row: _estimate(row.busy, 1e3),
        value=lambda row: _median(row.busy),
        smaller_is_better=True,
        legend="time that the device worked: CPU time of all threads, or between two events on an accelerator",
    ),
    Column(
        name="throughput",
        heading="images/s",
        cell=lambda row: _optional(row.images_per_second, 1, 1),
        value=lambda row: row.images_per_second,
        smaller_is_better=False,
    ),
    Column(
        name="ratio",
        heading="time / baseline",
        cell=lambda row: _ratio_cell(row, row.ratio),
        value=lambda row: _median(row.ratio),
        smaller_is_better=True,
        legend="latency over the baseline's in the same round, median and interval; below 1 is faster; 'tie' unless "
        f"the interval lies outside {TIE[0]} to {TIE[1]}",
    ),
    Column(
        name="busy_ratio",
        heading="busy / baseline",
        cell=lambda row: _ratio_cell(row, row.busy_ratio),
        value=lambda row: _median(row.busy_ratio),
        smaller_is_better=True,
        legend="the same of the device's own time (CPU time, or between two events), which other processes disturb less",
    ),
    Column(
        name="efficiency",
        heading="of best rate",
        cell=lambda row: _optional(row.efficiency, 100, 0, " %"),
        value=lambda row: row.efficiency,
        smaller_is_better=False,
        legend="FLOP/s achieved over the best that a few large kernels reached in this run and dtype",
    ),
    _mib("memory", "peak MiB", "peak_bytes", ""),
    _mib("live", "live MiB", "live_bytes", "the most that tensors hold at one time, followed without computing"),
    _mib("allocated", "allocated MiB", "allocated_bytes", "the most that the accelerator's allocator gave out"),
    _mib("reserved", "reserved MiB", "reserved_bytes", "the most that the accelerator's allocator held"),
    _mib(
        "rss", "RSS MiB", "rss_bytes", "how far the resident memory of a fresh process rose while it built the model and ran it"
    ),
    Column(
        name="parameters",
        heading="params M",
        cell=lambda row: _optional(row.parameters, 1e-6, 2),
        value=lambda row: row.parameters,
        smaller_is_better=True,
    ),
    Column(
        name="parts",
        heading="params M by part",
        cell=_parts_cell,
        value=lambda row: row.parts["encoder"] if row.parts else None,
        legend="encoder + adapters + decoder + head",
    ),
    Column(
        name="flops",
        heading="GFLOPs",
        cell=lambda row: _optional(row.flops, 1e-9, 2),
        value=lambda row: row.flops,
        smaller_is_better=True,
        legend="one forward pass, one image; a multiply-add is two; interpolation, norms and activations are not counted",
    ),
    Column(
        name="build",
        heading="build s",
        cell=lambda row: _optional(row.build_seconds, 1, 2),
        value=lambda row: row.build_seconds,
        smaller_is_better=True,
        legend="making the model in a fresh process, its modules imported before",
    ),
    Column(
        name="first",
        heading="first call s",
        cell=lambda row: _optional(row.first_seconds, 1, 2),
        value=lambda row: row.first_seconds,
        smaller_is_better=True,
        legend="in a fresh process; compiling is part of it",
    ),
    Column(
        name="fits",
        heading="batch that fits",
        cell=_smaller_cell,
        value=lambda row: row.smaller.batch if row.smaller else None,
        legend="tried after the row's own batch ran out of memory; alone, a few calls, compared with nothing",
    ),
    Column(
        name="quality",
        heading="mIoU",
        cell=lambda row: _optional(row.quality, 1, 3),
        value=lambda row: row.quality,
        smaller_is_better=False,
    ),
    Column(
        name="licences",
        heading="licences",
        cell=lambda row: row.licences or "-",
        value=lambda row: row.licences,
        is_number=False,
        legend="of the encoder's and the decoder's code, once where they are the same, and of pretrained weights",
    ),
    Column(
        name="rounds",
        heading="rounds",
        cell=_rounds_cell,
        value=lambda row: row.rounds,
        legend="interleaved, none is dropped; why they ended (precise: every interval is narrow enough; most: as many as "
        "allowed; time: the budget is spent; fixed: as many as asked for), and half the interval's width",
    ),
    Column(
        name="flags",
        heading="flags",
        cell=lambda row: "; ".join(row.flags) or "-",
        value=lambda row: len(row.flags),
        is_number=False,
    ),
)
"""All columns, in their order."""

DEFAULT_COLUMNS = [
    "run",
    "pairing",
    "mode",
    "batch",
    "size",
    "device",
    "dtype",
    "format",
    "runtime",
    "latency",
    "throughput",
    "ratio",
    "busy_ratio",
    "efficiency",
    "memory",
    "parameters",
    "flops",
    "quality",
    "fits",
    "licences",
    "rounds",
]
