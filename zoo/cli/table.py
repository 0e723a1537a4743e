"""The command `zoo table`: show results, or selected rows and columns of them."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.application import app, fail
from zoo.cli.console import (
    SUFFIXES,
    FormatOption,
    LegendOption,
    OutputOption,
    RunsArgument,
    StoreOption,
    choose_format,
    opened_store,
    read_table,
    show_results,
)
from zoo.common.choices import DEFAULT_STORE

__all__: list[str] = []


@app.command()
def table(
    runs: RunsArgument = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Sort by this column, or by several columns, separated by commas; -COLUMN sorts in descending order.",
            show_default="as measured",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Show these columns, separated by commas, or 'all'. To see the names of all columns, pass an unknown one, "
            "such as '?'.",
            show_default="the usual ones",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Show only rows that meet the condition, such as 'latency<20ms', 'decoder~unet*', 'mode=training'; may be "
            "repeated.",
            show_default="all",
        ),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Show only the Pareto front for these columns, such as latency,memory. A row is left out if another row of "
            "the same run, mode, batch, size and dtype is at least as good in all of these columns, and better in one.",
            show_default="all",
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = DEFAULT_STORE,
    legend: LegendOption = False,
) -> None:
    """Show the table of measured runs, or selected rows and columns of it.

    The exit status is 1 if no row meets the conditions.
    """
    from zoo.benchmark.analysis.conditions import explain_no_match, filter_rows, parse_conditions
    from zoo.benchmark.analysis.pareto import pareto_rows
    from zoo.benchmark.analysis.selection import select_rows, sort_rows
    from zoo.benchmark.table.columns import chosen_columns
    from zoo.benchmark.table.document import document

    form = choose_format(format, output, SUFFIXES)
    conditions = parse_conditions(where or [])
    with opened_store(store) as opened:
        whole = read_table(opened, runs)
        rows = filter_rows(whole.rows, conditions)
        if not rows:
            fail(explain_no_match(whole.rows, conditions), 1)
        rows = pareto_rows(rows, pareto) if pareto else rows
        rows = sort_rows(rows, sort) if sort else rows
        shown = document(select_rows(whole, rows), chosen_columns(rows, columns), legend=legend)
        show_results(shown, form, output, store)
