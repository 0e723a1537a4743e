"""The command `zoo estimate`: estimate what a pairing costs on this device, without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.answers import answer
from zoo.cli.application import app
from zoo.cli.console import DecoderArgument, EncoderArgument, PluginOption, StoreOption, load_plugins
from zoo.common.choices import DEFAULT_STORE
from zoo.registry.image_sizes import read_size

__all__: list[str] = []


@app.command()
def estimate(
    encoder: EncoderArgument,
    decoder: DecoderArgument,
    size: Annotated[str, typer.Option(metavar="HxW", help="Image size; 256 for a square.")] = "256",
    batch: Annotated[int, typer.Option(min=1, help="The number of images per call.")] = 1,
    classes: Annotated[int, typer.Option(min=1, help="The number of classes.")] = 1,
    in_channels: Annotated[int, typer.Option(min=1, help="The number of channels of the images.")] = 3,
    device: Annotated[str, typer.Option(help="A device that `zoo calibrate` has measured.")] = "auto",
    store: StoreOption = DEFAULT_STORE,
    plugin: PluginOption = None,
) -> None:
    """Estimate latency and memory of a pairing in inference in float32, without running it. Run `zoo calibrate` first."""
    import zoo

    load_plugins(plugin)
    sides = read_size(size, "--size")
    answer(
        zoo.estimate_cost(
            encoder,
            decoder,
            size=sides,
            batch=batch,
            device=device,
            store=store,
            classes=classes,
            in_channels=in_channels,
        )
    )
