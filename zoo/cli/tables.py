"""The commands that run many pairings and print one table: bench, matrix."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.answers import note
from zoo.cli.application import app, fail
from zoo.cli.console import STORE, FormatOption, OutputOption, StoreOption, check_writable, format_of, show_table

__all__: list[str] = []


@app.command()
def bench(
    config: Annotated[Path, typer.Argument(help="The run's YAML file.", show_default=False)],
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = STORE,
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
    from zoo.benchmark.formats import document

    gc.enable()  # switched off by the `zoo` script for a quick start
    form = format or format_of(output)
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
    from zoo.data.entry import locate_data

    folder = None if quality is None else locate_data(quality, Path())
    steps = int(budget) if budget is not None and re.fullmatch("[0-9]{1,9}", budget.strip()) else budget
    return {name: value for name, value in (("data", folder), ("budget", steps), ("seeds", seeds)) if value is not None}


@app.command()
def matrix(
    encoders: Annotated[
        str | None, typer.Option(help="A glob ('convnext*') or a part of the name ('convnext').", show_default="all")
    ] = None,
    decoders: Annotated[
        str | None, typer.Option(help="A glob ('unet-*') or a part of the name ('unet').", show_default="all")
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes build at a time.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build all again, also what is known.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="The SQLite file that keeps each outcome as it comes.", show_default="in the user's cache folder"),
    ] = None,
) -> None:
    """Build every encoder with every decoder on the meta device, and show which pairings work, and through which adapters.

    A pairing that fails is a cell with its error. What is known from an earlier run is not built again. Exit status 1: every
    one failed.
    """
    from zoo.compatibility import matrix as run_matrix

    gc.enable()  # switched off by the `zoo` script for a quick start
    form = format or format_of(output)
    if output is not None:
        check_writable(output)
    try:
        found = run_matrix(encoders, decoders, jobs=jobs, fresh=fresh, cache=cache)
    except KeyboardInterrupt:
        fail("Interrupted. What was built is kept; the same command goes on from there.", 130)
    show_table(found.document, form, output, kept="What was built is kept; the same command builds nothing again.")
    if not any(cell.is_ok for cell in found.cells):
        raise typer.Exit(1)
