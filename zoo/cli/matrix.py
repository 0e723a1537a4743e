"""The command `zoo matrix`: show which encoders work with which decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.application import app, fail
from zoo.cli.console import (
    SUFFIXES,
    FormatOption,
    OutputOption,
    PluginOption,
    check_writable,
    choose_format,
    load_plugins,
    show_table,
)

__all__: list[str] = []


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
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes build at the same time.")] = 1,
    limit: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="The time limit for one pairing; a pairing that exceeds it counts as failed."
        ),
    ] = 300,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build every pairing, even if an earlier run built it.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="The SQLite file in which results are stored.", show_default="in the user's cache folder"),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Build every encoder with every decoder on the meta device, and show which pairings work, and through which adapters.

    The cell of a pairing that fails shows the error. Pairings that an earlier run built are not built again. The exit status is
    1 if all pairings failed.
    """
    from zoo.benchmark.matrix import matrix as run_matrix

    form = choose_format(format, output, SUFFIXES)
    if output is not None:
        check_writable(output)
    load_plugins(plugin)
    try:
        result = run_matrix(encoders, decoders, jobs=jobs, limit=limit, fresh=fresh, cache=cache)
    except KeyboardInterrupt:
        fail("Interrupted. The results so far are kept; the same command continues from there.", 130)
    show_table(result.document, form, output, kept="The results are stored; the same command does not build them again.")
    if not any(cell.is_ok for cell in result.cells):
        raise typer.Exit(1)
