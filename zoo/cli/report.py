"""The command `zoo report`: write the results as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.answers import note
from zoo.cli.application import app
from zoo.cli.console import RunsArgument, StoreOption, opened_store
from zoo.common.choices import DEFAULT_STORE

__all__: list[str] = []


@app.command()
def report(
    runs: RunsArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("results/report.html"),
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write one HTML file with all results: the table, plots, plans and failures.

    The file is self-contained: send it, open it anywhere, print it.
    """
    from zoo.benchmark.analysis.selection import select_runs
    from zoo.benchmark.report import write_report
    from zoo.benchmark.table.table import table_of

    with opened_store(store) as opened:
        write_report(table_of(opened, *select_runs(opened, runs or [])), output)
    note(f"Written to {output} ({output.stat().st_size / 1e6:.1f} MB).")
