"""The command `zoo recommend`: recommend measured pairings that meet the given limits."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from zoo.cli.application import app
from zoo.cli.console import RunsArgument, StoreOption, opened_store, read_table, show_results
from zoo.common.choices import DEFAULT_STORE, Format
from zoo.errors import OptionError
from zoo.registry.image_sizes import read_size

__all__: list[str] = []


@app.command()
def recommend(
    context: typer.Context,
    runs: RunsArgument = None,
    device: Annotated[
        str | None,
        typer.Option(help="'cpu', 'cuda', or a part of the device's name.", show_default="each that was measured"),
    ] = None,
    mode: Annotated[Literal["inference", "training"], typer.Option(help="What the pairing is for.")] = "inference",
    batch: Annotated[int | None, typer.Option(min=1, help="Images per call.", show_default="each that was measured")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Image size; 256 for a square.", show_default="each that was measured")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="The data type, such as bfloat16.", show_default="each that was measured")
    ] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="20ms", help="Maximum time per call.", show_default=False)] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="500MiB", help="Maximum peak memory.", show_default=False)] = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="30M", help="Maximum parameters.", show_default=False)] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="20G", help="Maximum FLOPs per image.", show_default=False)] = None,
    min_throughput: Annotated[str | None, typer.Option(metavar="30", help="Minimum images/s.", show_default=False)] = None,
    min_quality: Annotated[str | None, typer.Option(metavar="0.7", help="Minimum mIoU.", show_default=False)] = None,
    maximize: Annotated[
        str, typer.Option(metavar="throughput|miou", help="What to rank the pairings by, best first.")
    ] = "throughput",
    estimated: Annotated[
        bool, typer.Option("--estimated", help="Also show pairings that were not measured, with estimates (`zoo calibrate`).")
    ] = False,
    encoders: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID|GLOB", help="With --estimated: the encoders to estimate; may be repeated.", show_default="all"
        ),
    ] = None,
    decoders: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID|GLOB", help="With --estimated: the decoders to estimate; may be repeated.", show_default="all"
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="The format of the answer.")] = "table",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Recommend the measured pairings that meet all given limits, with the code to build each. Show what each limit excludes.

    A pairing meets a limit only if the whole 95 % interval of its measured value is within the limit. The exit status is 1 if
    no measured pairing meets all limits.
    """
    if (encoders or decoders) and not estimated:
        raise OptionError("--encoders and --decoders select the pairings to estimate. Add --estimated, or leave them out.")
    if estimated and format == "csv":
        raise OptionError(
            "--estimated: a CSV file contains measured pairings only. Use --format json, or leave out --estimated."
        )
    from zoo.benchmark.analysis.recommend import LIMITS
    from zoo.benchmark.analysis.recommend import recommend as recommend_pairings
    from zoo.benchmark.analysis.recommend_document import document

    # Typer needs a parameter for each limit. The names of these parameters are the keys of LIMITS.
    limits = {name: context.params[name] for name in LIMITS if context.params[name] is not None}
    with opened_store(store) as opened:
        recommendation = recommend_pairings(
            read_table(opened, runs),
            device=device,
            mode=mode,
            batch=batch,
            size=None if size is None else read_size(size, "--size"),
            dtype=dtype,
            maximize=maximize,
            **limits,
        )
        shown = document(recommendation)
        if estimated:
            from zoo.benchmark.running.progress import ConsoleWatcher
            from zoo.search.estimated import estimate_others, with_estimates

            with ConsoleWatcher() as watcher:
                others = estimate_others(recommendation, opened, watcher, encoders=encoders or (), decoders=decoders or ())
            shown = with_estimates(shown, others)
        show_results(shown, format, None, store)
    if not recommendation.fits:
        raise typer.Exit(1)
