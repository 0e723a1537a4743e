"""The command `zoo new`: write the distribution of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.answers import answer, note
from zoo.cli.application import app

__all__: list[str] = []


@app.command()
def new(
    kind: Annotated[Literal["decoder", "encoder"], typer.Argument(help="What the plugin provides.", show_default=False)],
    name: Annotated[str, typer.Argument(help="The name, such as 'my-fpn'.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="A new or empty folder.", show_default="./NAME")
    ] = None,
) -> None:
    """Write a plugin with a new decoder or encoder: a small package that can be installed, works, and has tests."""
    from zoo.cli.new.distribution import write_distribution

    folder = output or Path(name)
    for file in write_distribution(kind, name, folder):
        answer(file)
    path = folder.as_posix() if folder.is_absolute() else f"./{folder.as_posix()}"
    note(f'Next: pip install "{path}[test]", then pytest {path}, then zoo show {name}.')
