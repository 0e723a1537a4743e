"""The command `zoo list`: list the ids of all encoders or decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zoo.cli.answers import answer, note, show_parts
from zoo.cli.application import app
from zoo.cli.console import PluginOption, load_plugins
from zoo.cli.show import weights_license
from zoo.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__: list[str] = []

COLUMNS: dict[str, Callable[[Any], str]] = {
    "id": lambda entry: entry.id,
    "full-id": lambda entry: entry.full_id,
    "plugin": lambda entry: entry.plugin,
    "distribution": lambda entry: f"{entry.distribution} {entry.version}".strip(),
    "license": lambda entry: entry.spec.license or "not stated",
    "weights-license": lambda entry: weights_license(entry.spec),
    "source": lambda entry: entry.spec.source or "not stated",
}


@app.command("list")
def list_ids(
    kind: Annotated[Literal["encoders", "decoders"], typer.Argument(help="What to list.", show_default=False)],
    pattern: Annotated[
        str | None, typer.Argument(help="A glob ('convnext*') or a part of the name ('convnext').", show_default=False)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=f"Print a table of these columns, separated by commas: {', '.join(COLUMNS)}.",
            show_default="only the ids, one per line",
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """List the ids of all encoders or decoders, one per line, or as a table with what is known about each."""
    from zoo.registry.registry import default_registry

    load_plugins(plugin)
    names = _column_names(columns)
    registry = default_registry()
    entries = registry.matching("encoder" if kind == "encoders" else "decoder", pattern)
    if names:
        from zoo.common.grid import Grid, GridRow, Heading

        rows = tuple(GridRow(cells=tuple(COLUMNS[name](entry) for name in names)) for entry in entries)
        show_parts(Grid(headings=tuple(Heading(text=name, can_wrap=True) for name in names), sections=(rows,)))
    else:
        for entry in entries:
            answer(entry.id)
    if broken := registry.broken():
        note(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)")


def _column_names(text: str | None) -> list[str]:
    names = [] if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise OptionError(f"--columns: there is no column {name!r}. Choose from {', '.join(COLUMNS)}.")
    return names
