"""The command `zoo export-results`: write results for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from zoo.cli.answers import answer, note
from zoo.cli.application import app
from zoo.cli.console import RunsArgument, StoreOption, check_writable, choose_format, opened_store
from zoo.common.choices import DEFAULT_STORE
from zoo.errors import OptionError

__all__: list[str] = []

ExportFormat: TypeAlias = Literal["csv", "json", "parquet"]
SUFFIXES: dict[str, ExportFormat] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


@app.command("export-results")
def export_results(
    runs: RunsArgument = None,
    format: Annotated[
        ExportFormat | None,
        typer.Option("--format", "-f", help="The format of the file.", show_default="by --output's suffix, or csv"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; required for Parquet.", show_default="the standard output"),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Write the raw measurements, one per trial and round, instead of the rows.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write the rows of runs, with all columns, as CSV, JSON or Parquet. With --samples, write the raw measurements instead."""
    from zoo.benchmark.analysis.selection import select_runs
    from zoo.benchmark.table.export import exported_rows, exported_samples
    from zoo.benchmark.table.table import table_of
    from zoo.common.rendering import write_whole

    form = choose_format(format, output, SUFFIXES)
    if form == "parquet" and output is None:
        raise OptionError("--format parquet needs a file: add --output FILE.parquet.")
    with opened_store(store) as opened:
        chosen = select_runs(opened, runs or [])
        content = exported_samples(opened, chosen, form) if samples else exported_rows(table_of(opened, *chosen), form)
    if output is None:
        answer(content.decode(), nl=False)
        return
    if os.path.lexists(output):
        check_writable(output)
    write_whole(output, content)
    note(f"Written to {output}.")
