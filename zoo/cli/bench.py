"""The command `zoo bench`: measure every pairing of a configuration, and print one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.answers import note
from zoo.cli.application import app, fail
from zoo.cli.console import (
    SUFFIXES,
    FormatOption,
    LegendOption,
    OutputOption,
    StoreOption,
    check_writable,
    choose_format,
    show_table,
)
from zoo.common.choices import DEFAULT_STORE

__all__: list[str] = []


@app.command()
def bench(
    config: Annotated[Path, typer.Argument(help="The run's YAML file.", show_default=False)],
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = DEFAULT_STORE,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="TASK|FOLDER",
            help="Also train every pairing on this task (texture-mosaic, ...) or folder of images/ and masks/, and test it.",
            show_default="as CONFIG says",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS|MINUTES",
            help="How long to train each pairing: 300 steps, or '2 min'.",
            show_default="CONFIG's, else the task's",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many times to train each pairing.", show_default="CONFIG's, else 3")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Measure on every machine of this Ray cluster; 'auto' is the cluster that this machine belongs to.",
            show_default="only this machine",
        ),
    ] = None,
    legend: LegendOption = False,
) -> None:
    """Measure every pairing of a configuration side by side, and print one table. An interrupted run is resumed.

    With --quality, the table has the mIoU of each pairing after training, over several seeds.

    A pairing that fails, or that cannot be trained with any seed, has a row with the error. The last line counts such pairings.
    The exit status is 1 if all pairings failed.
    """
    from zoo.benchmark import bench as run_bench
    from zoo.benchmark import load_config
    from zoo.benchmark.config import with_quality
    from zoo.benchmark.table.document import document

    form = choose_format(format, output, SUFFIXES)
    run_config = load_config(config)
    if changes := _quality_changes(quality, budget, seeds):
        run_config = with_quality(run_config, changes)
    if output is not None:
        check_writable(output)
    try:
        table = run_bench(run_config, store=store, ray=ray)
    except KeyboardInterrupt:
        fail("Interrupted. The measurements so far are kept; the same command resumes the run.", 130)
    show_table(document(table, legend=legend), form, output, kept=f"The results are in {store}.")
    failed = {row.name for row in table.rows if row.has_failed}
    if failed:
        note(f"{len(failed)} of {len({row.name for row in table.rows})} pairings failed.")
    if all(row.has_failed for row in table.rows):
        raise typer.Exit(1)


def _quality_changes(quality: str | None, budget: str | None, seeds: int | None) -> dict[str, Any]:
    from zoo.data.data_config import locate_data

    folder = None if quality is None else locate_data(quality, Path())
    steps = int(budget) if budget is not None and re.fullmatch("[0-9]{1,9}", budget.strip()) else budget
    return {name: value for name, value in (("data", folder), ("budget", steps), ("seeds", seeds)) if value is not None}
