"""The command `zoo search`: search all pairings for the best ones that meet the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.application import app, fail
from zoo.cli.console import PluginOption, StoreOption, show_results
from zoo.common.choices import DEFAULT_STORE, Format
from zoo.registry.image_sizes import read_size

__all__: list[str] = []


@app.command()
def search(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="TASK|FOLDER",
            help="Train candidates on this task or folder of images/ and masks/.",
            show_default="no training",
        ),
    ] = None,
    encoders: Annotated[
        list[str] | None,
        typer.Option(metavar="ID|GLOB", help="Encoders to consider, such as 'timm:*'; may be repeated.", show_default="all"),
    ] = None,
    decoders: Annotated[
        list[str] | None,
        typer.Option(metavar="ID|GLOB", help="Decoders to consider, such as 'unet-*'; may be repeated.", show_default="all"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Image size; 256 for a square.", show_default="the data's, else 256")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
    classes: Annotated[
        int | None, typer.Option(min=1, help="The number of classes.", show_default="the data's, else 1")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(min=1, help="The number of channels of the images.", show_default="the data's, else 3")
    ] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="20ms", help="Maximum time per call.", show_default=False)] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="500MiB", help="Maximum peak memory.", show_default=False)] = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="30M", help="Maximum parameters.", show_default=False)] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="20G", help="Maximum FLOPs per image.", show_default=False)] = None,
    license: Annotated[
        str,
        typer.Option(
            metavar="permissive|SPDX,...", help="Only these licenses: 'permissive', or SPDX ids.", show_default="every license"
        ),
    ] = "",
    weights: Annotated[
        Literal["local", "download", "random"],
        typer.Option(
            help="What encoders are trained from: pretrained weights on this machine, downloaded ones, or random ones."
        ),
    ] = "local",
    prior: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Scores of encoders: two columns, id and score.", show_default="the FLOPs"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the whole training.", show_default="the task's, else 300")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="How long the search may take.", show_default="10; with --data 60")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the first training of each candidate.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder of the search and of the best trained model.", show_default="next to the store"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="A device that `zoo calibrate` has measured.")] = "auto",
    format: Annotated[Format, typer.Option("--format", "-f", help="The format of the answer.")] = "table",
    store: StoreOption = DEFAULT_STORE,
    plugin: PluginOption = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="Measure and train on a Ray cluster.", show_default="only this machine"),
    ] = None,
) -> None:
    """Search all pairings for the best ones that meet the limits. Run `zoo calibrate` first.

    All pairings are estimated without running them. The most promising ones are measured and, with --data, trained: many for
    few steps, and the best of them further. An interrupted search is resumed by the same command.

    The exit status is 1 if no measured pairing meets all limits.
    """
    import zoo
    from zoo.search.request import LIMITS
    from zoo.search.result import document

    try:
        result = zoo.search_pairings(
            data=data,
            encoders=encoders or (),
            decoders=decoders or (),
            size=None if size is None else read_size(size, "--size"),
            batch=batch,
            classes=classes,
            in_channels=in_channels,
            license=license,
            weights=weights,
            prior=prior,
            steps=steps,
            minutes=minutes,
            seed=seed,
            output=output,
            device=device,
            plugins=plugin or (),
            store=store,
            ray=ray,
            **{name: context.params[name] for name in LIMITS},
        )
    except KeyboardInterrupt:
        fail("Interrupted. The measurements so far are kept; the same command goes on with the search.", 130)
    show_results(document(result), format, None, store)
    if not result.rows:
        raise typer.Exit(1)
