"""The command that writes a new plugin's distribution: new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.answers import answer, note
from zoo.cli.application import app

__all__: list[str] = []


@app.command()
def new(
    kind: Annotated[Literal["decoder", "encoder"], typer.Argument(help="What to write.", show_default=False)],
    name: Annotated[str, typer.Argument(help="What it is called, such as 'my-fpn'.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="A new or empty folder.", show_default="./NAME")
    ] = None,
) -> None:
    """Write a decoder or an encoder of your own: a small distribution that installs, works and has its tests."""
    from zoo.cli.new.distribution import write_distribution

    folder = output or Path(name)
    for path in write_distribution(kind, name, folder):
        answer(path)
    where = folder.as_posix() if folder.is_absolute() else f"./{folder.as_posix()}"
    note(f'Next: pip install "{where}[test]", then pytest {where}, then zoo show {name}.')
