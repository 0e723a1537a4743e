"""The columns of the table: their cells, the values by which rows are sorted, and their legends. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from zoo.benchmark.table.rows import Row
from zoo.benchmark.trial import USUAL_MEMORY_FORMAT, USUAL_RUNTIME
from zoo.common.statistics import SCORE_TIE, TIE, Estimate
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError

__all__ = ["COLUMNS", "OPTIONAL_COLUMNS", "Column", "chosen_columns", "column_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table.

    Attributes:
        name: the name in `--columns`, `--sort` and `--where`.
        heading: the text above the column.
        cell: returns the text of a row's cell.
        value: returns the value by which rows are sorted and compared; None for a row without this value.
        is_number: whether the cells are numbers, so that they are aligned to the right.
        smaller_is_better: whether a smaller value is better; None for a column that does not rank rows.
        legend: the explanation below the table; "" for none.
    """

    name: str
    heading: str
    cell: Callable[[Row], str]
    value: Callable[[Row], Any]
    is_number: bool = True
    smaller_is_better: bool | None = None
    legend: str = ""


def chosen_columns(rows: Sequence[Row], names: str | None = None) -> list[Column]:
    """Return the columns to show.

    Args:
        rows: the rows of the table. A column is left out if each of its cells is empty or contains the usual memory format or
            runtime, unless `names` lists the column.
        names: the names of the columns, separated by commas; "all" for all columns; None for the default columns.

    Raises:
        OptionError: a name is unknown.
    """
    if names is None:
        return [column for column in COLUMNS if column.name not in OPTIONAL_COLUMNS and _says_something(column, rows)]
    if names.strip() == "all":
        return [column for column in COLUMNS if _says_something(column, rows)]
    return [column_named(name.strip()) for name in names.split(",")]


def column_named(name: str) -> Column:
    """Return a column by its name.

    Raises:
        OptionError: no column has that name.
    """
    for column in COLUMNS:
        if column.name == name:
            return column
    known = [column.name for column in COLUMNS]
    raise OptionError(f"The table has no column {name!r}.{did_you_mean(name, known)} Choose from: {', '.join(known)}.")


NOT_WORTH_A_COLUMN = ("-", USUAL_MEMORY_FORMAT, USUAL_RUNTIME)


def _says_something(column: Column, rows: Sequence[Row]) -> bool:
    if column.name == "run":
        return len({row.run for row in rows}) > 1
    if column.name == "data":
        return len({row.data for row in rows if row.data}) > 1
    return column.name == "pairing" or any(column.cell(row) not in NOT_WORTH_A_COLUMN for row in rows)


def _ratio_cell(row: Row, estimate: Estimate | None) -> str:
    if row.is_baseline:
        return "-" if row.error else "1 (baseline)"
    return f"{estimate.format(digits=2)}{' tie' if estimate.is_tie else ''}" if estimate else "-"


def _difference_cell(row: Row) -> str:
    if row.quality_difference is None:
        return "-"
    if row.is_baseline:
        return "0 (baseline)"
    return row.quality_difference.format() + (" tie" if row.quality_difference.is_tie else "")


def _rounds_cell(row: Row) -> str:
    if not row.rounds:
        return "0"
    estimate = row.ratio if row.ratio and not row.is_baseline else row.latency
    reason = {"precise": "precise", "limit": "most", "budget": "time", "fixed": "fixed", None: "unfinished"}[row.stopped]
    return f"{row.rounds} {reason}" + (f" ±{100 * estimate.precision:.1f} %" if estimate else "")


def _parts_cell(row: Row) -> str:
    if not row.parts:
        return "-"
    return " + ".join(f"{row.parts[part] / 1e6:,.2f}" for part in ("encoder", "adapters", "decoder", "head"))


def _smaller_cell(row: Row) -> str:
    return f"{row.smaller.batch} ({row.smaller.images_per_second:.1f} images/s)" if row.smaller else "-"


def _plain(name: str, heading: str, fact: str, legend: str = "", *, is_number: bool = False) -> Column:
    """Return a column that shows the row's attribute `fact` as text."""
    value: Callable[[Row], Any] = attrgetter(fact)
    return Column(
        name=name, heading=heading, cell=lambda row: str(value(row)) or "-", value=value, is_number=is_number, legend=legend
    )


def _number(
    name: str, heading: str, fact: str, scale: float, digits: int, legend: str = "", *, unit: str = "", more: bool = False
) -> Column:
    """Return a column that shows a number times `scale`. Smaller numbers are better; with `more`, larger numbers are better."""
    value: Callable[[Row], float | None] = attrgetter(fact)

    def cell(row: Row) -> str:
        number = value(row)
        return "-" if number is None else f"{number * scale:,.{digits}f}{unit}"

    return Column(name=name, heading=heading, cell=cell, value=value, smaller_is_better=not more, legend=legend)


def _interval(name: str, heading: str, legend: str, *, is_ratio: bool = False) -> Column:
    """Return a column with a median and its interval: a time in milliseconds or, with `is_ratio`, a ratio to the baseline."""
    get_estimate: Callable[[Row], Estimate | None] = attrgetter(name)

    def cell(row: Row) -> str:
        estimate = get_estimate(row)
        if is_ratio:
            return _ratio_cell(row, estimate)
        return estimate.format(1e3, 1) if estimate else "-"

    def value(row: Row) -> float | None:
        estimate = get_estimate(row)
        return estimate.median if estimate else None

    return Column(name=name, heading=heading, cell=cell, value=value, smaller_is_better=True, legend=legend)


COLUMNS = (
    _plain("run", "run", "run", is_number=True),
    _plain("pairing", "pairing", "name"),
    _plain("mode", "mode", "mode", "inference: forward; training: forward, loss, backward, AdamW"),
    _plain("batch", "batch", "batch", is_number=True),
    Column(
        name="size",
        heading="size",
        cell=lambda row: f"{row.height}x{row.width}",
        value=lambda row: row.height * row.width,
    ),
    _plain("device", "device", "device"),
    _plain("dtype", "dtype", "dtype"),
    _plain("format", "format", "memory_format"),
    _plain("runtime", "runtime", "runtime"),
    _interval("latency", "latency ms", "median wall-clock time of all rounds, with its interval"),
    _number("p90", "p90 ms", "p90", 1e3, 1, "the latency was lower in nine of ten rounds"),
    _interval(
        "busy",
        "busy ms",
        "time that the device worked: the CPU time of all threads or, on an accelerator, the time between two timing events",
    ),
    _number("throughput", "images/s", "images_per_second", 1, 1, more=True),
    _interval(
        "ratio",
        "time / baseline",
        "latency divided by the baseline's in the same round, median and interval; below 1 is faster; 'tie' unless "
        f"the whole interval lies outside {TIE[0]} to {TIE[1]}",
        is_ratio=True,
    ),
    _interval(
        "busy_ratio",
        "busy / baseline",
        "busy time divided by the baseline's in the same round; other processes disturb it less than time / baseline",
        is_ratio=True,
    ),
    _number(
        "efficiency",
        "of best rate",
        "efficiency",
        100,
        0,
        "the row's FLOP/s divided by the best rate of a few large kernels in the same run and dtype",
        unit=" %",
        more=True,
    ),
    _number("memory", "peak MiB", "peak_bytes", 2**-20, 0),
    _number(
        "live",
        "live MiB",
        "live_bytes",
        2**-20,
        0,
        "the peak size of all live tensors during a step, which is computed and not measured",
    ),
    _number(
        "allocated",
        "allocated MiB",
        "allocated_bytes",
        2**-20,
        0,
        "the peak size of the row's tensors on the accelerator, as counted by its allocator",
    ),
    _number(
        "rss",
        "RSS MiB",
        "rss_bytes",
        2**-20,
        0,
        "growth of the resident memory of a fresh process while it built and ran the model",
    ),
    _number("parameters", "params M", "parameters", 1e-6, 2),
    Column(
        name="parts",
        heading="params M by part",
        cell=_parts_cell,
        value=lambda row: row.parts["encoder"] if row.parts else None,
        legend="encoder + adapters + decoder + head",
    ),
    _number(
        "flops",
        "GFLOPs",
        "flops",
        1e-9,
        2,
        "one forward pass for one image; a multiply-add counts as two; interpolation, norms and activations do not count",
    ),
    _number(
        "build",
        "build s",
        "build_seconds",
        1,
        2,
        "time to build the model and move it to the device, without importing modules",
    ),
    _number("first", "first call s", "first_seconds", 1, 2, "time of the first call, including compilation"),
    Column(
        name="fits",
        heading="batch that fits",
        cell=_smaller_cell,
        value=lambda row: row.smaller.batch if row.smaller else None,
        legend="the row's batch ran out of memory, and this smaller batch fits into memory; its speed is that of a few calls "
        "and is not compared with other rows",
    ),
    _plain("data", "data", "data", "the data of the mIoU; compare the mIoU of models only on the same data"),
    Column(
        name="quality",
        heading="mIoU",
        cell=lambda row: row.quality.format() if row.quality else "-",
        value=lambda row: row.miou,
        smaller_is_better=False,
        legend="mean intersection over union on the test split after training: mean ± standard deviation over the seeds",
    ),
    Column(
        name="quality_difference",
        heading="mIoU - baseline",
        cell=_difference_cell,
        value=lambda row: row.quality_difference.mean if row.quality_difference else None,
        smaller_is_better=False,
        legend="mean difference over the seeds that both models have, with Student's t interval; 'tie' unless a t-test shows a "
        f"difference of more than {SCORE_TIE}, with Holm's correction for the number of models in the run",
    ),
    _plain(
        "licenses",
        "licenses",
        "licenses",
        "licenses of the encoder's and the decoder's code (once if they are the same), and of pretrained weights",
    ),
    Column(
        name="rounds",
        heading="rounds",
        cell=_rounds_cell,
        value=lambda row: row.rounds,
        legend="the number of interleaved rounds, of which none is dropped; why they ended (precise: every interval is narrow "
        "enough; most: the maximum was reached; time: the time budget was spent; fixed: the configuration sets the number); "
        "and half the interval's width",
    ),
    Column(
        name="flags",
        heading="flags",
        cell=lambda row: "; ".join(row.flags) or "-",
        value=lambda row: len(row.flags),
        is_number=False,
    ),
)
"""All columns, in the order of the table."""

OPTIONAL_COLUMNS = ("p90", "busy", "live", "allocated", "rss", "parts", "build", "first", "flags")
"""Columns that are shown only if they are named or all columns are requested."""
