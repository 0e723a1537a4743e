"""The commands that show a pairing's plan: explain, negotiate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import answer, console
from zoo.cli.application import app
from zoo.errors import OptionError
from zoo.registry.image_sizes import read_size

if TYPE_CHECKING:
    from zoo.pairing.pairing import Pairing

__all__: list[str] = []

EncoderArgument = Annotated[str, typer.Argument(help="An encoder's id.", show_default=False)]
DecoderArgument = Annotated[str, typer.Argument(help="A decoder's id.", show_default=False)]
LevelsOption = Annotated[int | None, typer.Option(help="How many strides to use, counted from the finest.", show_default="all")]
ImageSizeOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="The image size that the model will see.", show_default="may vary")
]
AdaptersOption = Annotated[str, typer.Option(help="'auto', or 'none' to insert nothing.")]
SizePolicyOption = Annotated[str, typer.Option(help="'auto', 'pad', 'resize' or 'error'.")]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option("--encoder-option", metavar="NAME=VALUE", help="An option of the encoder; may be repeated."),
]
DecoderOptions = Annotated[
    list[str] | None,
    typer.Option("--decoder-option", metavar="NAME=VALUE", help="An option of the decoder; may be repeated."),
]


@app.command()
def explain(
    encoder: EncoderArgument,
    decoder: DecoderArgument,
    levels: LevelsOption = None,
    image_size: ImageSizeOption = None,
    adapters: AdaptersOption = "auto",
    size_policy: SizePolicyOption = "auto",
    encoder_options: EncoderOptions = None,
    decoder_options: DecoderOptions = None,
) -> None:
    """Show the plan of a pairing: which feature map goes where, through what, and why."""
    from zoo.pairing.plan_view import plan_view
    from zoo.pairing.resolve import resolve

    pairing = _pairing(encoder, decoder, levels, image_size, adapters, size_policy, encoder_options, decoder_options)
    console().print(plan_view(resolve(pairing).plan, pairing))


@app.command()
def negotiate(
    encoder: EncoderArgument,
    decoder: DecoderArgument,
    levels: LevelsOption = None,
    image_size: ImageSizeOption = None,
    adapters: AdaptersOption = "auto",
    size_policy: SizePolicyOption = "auto",
    encoder_options: EncoderOptions = None,
    decoder_options: DecoderOptions = None,
) -> None:
    """Print the plan of a pairing as JSON, for a program to read."""
    import json

    from zoo.pairing.resolve import resolve

    pairing = _pairing(encoder, decoder, levels, image_size, adapters, size_policy, encoder_options, decoder_options)
    answer(json.dumps(resolve(pairing).plan.as_dict(), indent=2))


def _pairing(
    encoder: str,
    decoder: str,
    levels: int | None,
    image_size: str | None,
    adapters: str,
    size_policy: str,
    encoder_options: list[str] | None,
    decoder_options: list[str] | None,
) -> Pairing:
    from zoo.pairing.pairing import Pairing

    return Pairing(
        encoder,
        decoder,
        levels=levels,
        image_size=None if image_size is None else read_size(image_size, "--image-size"),
        adapters=adapters,
        size_policy=size_policy,
        encoder_options=_options(encoder_options),
        decoder_options=_options(decoder_options),
    )


def _options(given: list[str] | None) -> dict[str, Any]:
    from zoo.common.configuration import read_option

    options = {}
    for entry in given or ():
        name, sign, value = entry.partition("=")
        if not sign or not name:
            raise OptionError(f"An option is written NAME=VALUE, such as norm=group; found {entry!r}.")
        options[name] = read_option(name, value)
    return options
