"""The command line application. After an error that the user can correct, it prints one message and exits with status 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from zoo.cli.answers import Application, error_stream
from zoo.errors import ZooError

__all__ = ["app", "fail", "main"]

app = Application(
    name="zoo",
    help="Pair any image encoder with any segmentation decoder, and measure which pairing is worth using.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line."""
    try:
        app()
    except ZooError as error:
        fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def fail(message: str, status: int) -> NoReturn:
    """Print the message as an error, and exit with this status."""
    from rich.text import Text

    from zoo.common.rendering import PrintableConsole

    PrintableConsole(file=error_stream()).print(Text("Error: ", style="bold red") + Text(message), soft_wrap=True)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        import zoo

        typer.echo(f"segmentation-zoo {zoo.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
