"""The commands that show a pairing's plan: explain, negotiate."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import answer, show_parts
from zoo.cli.application import app
from zoo.cli.console import DecoderArgument, EncoderArgument, PluginOption, load_plugins
from zoo.errors import OptionError
from zoo.registry.image_sizes import read_size

if TYPE_CHECKING:
    from zoo.pairing.pairing import Pairing

__all__: list[str] = []


def _make_pairing(
    encoder: EncoderArgument,
    decoder: DecoderArgument,
    levels: Annotated[
        int | None,
        typer.Option(help="How many of the encoder's feature maps to use, finest first (one per stride).", show_default="all"),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HxW", help="The size of the images.", show_default="may vary")
    ] = None,
    adapters: Annotated[str, typer.Option(help="'auto', or 'none' to insert no adapters.")] = "auto",
    size_policy: Annotated[
        str, typer.Option(help="For images of a size that the encoder does not accept: 'auto', 'pad', 'resize' or 'error'.")
    ] = "auto",
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("--encoder-option", metavar="NAME=VALUE", help="An option of the encoder; may be repeated."),
    ] = None,
    decoder_options: Annotated[
        list[str] | None,
        typer.Option("--decoder-option", metavar="NAME=VALUE", help="An option of the decoder; may be repeated."),
    ] = None,
    plugin: PluginOption = None,
) -> Any:  # a Pairing, but Typer cannot resolve this name
    from zoo.pairing.pairing import Pairing

    load_plugins(plugin)
    options: dict[str, Any] = {
        "levels": levels,
        "image_size": None if image_size is None else read_size(image_size, "--image-size"),
        "adapters": adapters,
        "size_policy": size_policy,
        "encoder_options": _read_options(encoder_options),
        "decoder_options": _read_options(decoder_options),
    }
    return Pairing(encoder, decoder, **options)


def _with_pairing(show: Callable[[Pairing], None]) -> Callable[..., None]:
    """Return a command with the name and the help text of `show` and with the parameters of `_make_pairing`."""

    @wraps(_make_pairing)
    def command(**arguments: Any) -> None:
        show(_make_pairing(**arguments))

    command.__name__, command.__doc__ = show.__name__, show.__doc__
    return command


@app.command()
@_with_pairing
def explain(pairing: Pairing) -> None:
    """Show the plan of a pairing: which feature map goes to which decoder input, through which adapters, and why."""
    from zoo.pairing.plan_parts import plan_parts
    from zoo.pairing.resolve import resolve

    show_parts(*plan_parts(resolve(pairing).plan, pairing))


@app.command()
@_with_pairing
def negotiate(pairing: Pairing) -> None:
    """Print the plan of a pairing as JSON, for a program to read."""
    import json

    from zoo.pairing.resolve import resolve

    answer(json.dumps(resolve(pairing).plan.as_dict(), indent=2))


def _read_options(assignments: list[str] | None) -> dict[str, Any]:
    from zoo.common.configuration import read_option

    options = {}
    for assignment in assignments or ():
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise OptionError(f"An option must be written NAME=VALUE, such as norm=group; found {assignment!r}.")
        options[name] = read_option(name, value)
    return options
