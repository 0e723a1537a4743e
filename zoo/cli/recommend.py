"""The command `zoo recommend`: which measured pairings to choose within given limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from zoo.cli.application import app
from zoo.cli.console import STORE, FormatName, RunsArgument, StoreOption, opened_store, read_table, show_results
from zoo.registry.image_sizes import read_size

__all__: list[str] = []


class ModeName(StrEnum):
    """What a pairing does."""

    inference = "inference"
    training = "training"


@app.command()
def recommend(
    runs: RunsArgument = None,
    device: Annotated[
        str | None,
        typer.Option(help="'cpu', 'cuda', or a part of the device's name.", show_default="every one that was measured"),
    ] = None,
    mode: Annotated[ModeName, typer.Option(help="What the pairing is to do.")] = ModeName.inference,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a call.", show_default="each that was measured")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of the image; 256 for a square.", show_default="each that was measured")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Such as bfloat16.", show_default="each that was measured")] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="20ms", help="Time a call at most.", show_default=False)] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="500MiB", help="Peak at most.", show_default=False)] = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="30M", help="Parameters at most.", show_default=False)] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="20G", help="FLOPs an image at most.", show_default=False)] = None,
    min_throughput: Annotated[str | None, typer.Option(metavar="30", help="Images/s at least.", show_default=False)] = None,
    min_quality: Annotated[str | None, typer.Option(metavar="0.7", help="mIoU at least.", show_default=False)] = None,
    maximize: Annotated[str, typer.Option(metavar="throughput|miou", help="What stands first.")] = "throughput",
    format: Annotated[FormatName, typer.Option("--format", "-f", help="How to write it.")] = FormatName.table,
    store: StoreOption = STORE,
) -> None:
    """Say which measured pairings to choose within given limits, with the code that builds each, and what limits the choice.

    A limit holds for the whole interval of what was measured. Exit status 1: no pairing fits.
    """
    from zoo.benchmark.analysis.fields import quantity
    from zoo.benchmark.analysis.recommend import LIMITS
    from zoo.benchmark.analysis.recommend import recommend as recommend_of
    from zoo.benchmark.analysis.recommend_document import document

    given = {
        "max_latency": max_latency,
        "max_memory": max_memory,
        "max_parameters": max_parameters,
        "max_flops": max_flops,
        "min_throughput": min_throughput,
        "min_quality": min_quality,
    }
    limits = {
        name: quantity(LIMITS[name], text, f"--{name.replace('_', '-')}") for name, text in given.items() if text is not None
    }
    with opened_store(store) as opened:
        found = recommend_of(
            read_table(opened, runs),
            device=device,
            mode=mode.value,
            batch=batch,
            size=None if size is None else read_size(size, "--size"),
            dtype=dtype,
            maximize=maximize,
            **limits,
        )
        show_results(document(found), format, None, store)
    if not found.fits:
        raise typer.Exit(1)
