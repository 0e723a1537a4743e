"""The command `zoo bench`: measure every pairing of a configuration, and print one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.answers import note
from zoo.cli.application import app, fail
from zoo.cli.console import SUFFIXES, FormatOption, OutputOption, StoreOption, check_writable, choose_format, show_table
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
            help="Train every pairing on this, too, and test it: texture-mosaic, ..., or a folder of images/ and masks/.",
            show_default="as CONFIG says",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS|MINUTES", help="Of each training: 300, or '2 min'.", show_default="CONFIG's, else the task's"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How often each is trained.", show_default="CONFIG's, else 3")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Measure on every machine of this Ray cluster; 'auto': of the one that this machine belongs to.",
            show_default="in this machine's own processes",
        ),
    ] = None,
) -> None:
    """Measure every pairing of a configuration side by side, and print one table; an interrupted run goes on.

    With --quality the table has each one's mIoU after training, over several seeds.

    A pairing that fails, or each of whose trainings does, is a row that says so, and the last line says how many did. Exit
    status 1: every one failed.
    """
    from zoo.benchmark import bench as run_bench
    from zoo.benchmark import load_config
    from zoo.benchmark.config import with_quality
    from zoo.benchmark.table.document import document

    form = choose_format(format, output, SUFFIXES)
    wanted = load_config(config)
    if changes := _quality_changes(quality, budget, seeds):
        wanted = with_quality(wanted, changes)
    if output is not None:
        check_writable(output)
    try:
        table = run_bench(wanted, store=store, ray=ray)
    except KeyboardInterrupt:
        fail("Interrupted. What was measured is kept; the same command goes on from there.", 130)
    show_table(document(table), form, output, kept=f"The results are in {store}.")
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
