"""The command `zoo plugins`: show the installed plugins, and what is wrong with plugins that cannot be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.answers import answer, show_parts
from zoo.cli.application import app

if TYPE_CHECKING:
    from zoo.registry.discovery import PluginRecord

__all__: list[str] = []

STYLES = {"ok": "green", "failed": "red", "disabled": "dim"}
MAX_NAMES = 12
"""The largest number of encoders or decoders that are named. If a plugin has more, only their number is shown."""


@app.command()
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Exit with status 1 if any plugin could not be loaded.")] = False,
) -> None:
    """Show the installed plugins: where they come from, what they provide, and what is wrong with those that fail."""
    from zoo.common.grid import Grid, GridRow, Heading
    from zoo.registry.registry import default_registry

    headings = (
        *(Heading(text=text) for text in ("plugin", "distribution", "version")),
        Heading(text="provides", can_wrap=True),
        Heading(text="import ms", is_number=True),
        Heading(text="status"),
    )
    records = default_registry().records()
    rows = []
    for record in records:
        found = record.found
        milliseconds = "-" if record.status == "disabled" else f"{record.load_seconds * 1e3:.0f}"
        cells = (found.name, found.distribution, found.version, _count_specs(record), milliseconds, record.status)
        rows.append(GridRow(cells=cells, styles=("", "", "", "", "", STYLES[record.status])))
    show_parts(Grid(headings=headings, sections=(tuple(rows),)))
    for record in records:
        if record.error:
            answer(f"{record.found.name}: {record.error}")
        elif record.found.disabled_by:
            answer(f"{record.found.name}: switched off by the environment variable {record.found.disabled_by}.")
    if check and default_registry().broken():
        raise typer.Exit(1)


def _count_specs(record: PluginRecord) -> str:
    counts = []
    for kind, specs in (("encoder", record.encoders), ("decoder", record.decoders)):
        names = f" ({', '.join(spec.name for spec in specs)})" if len(specs) <= MAX_NAMES else ""
        if specs:
            counts.append(f"{len(specs):,} {kind}{'s' if len(specs) > 1 else ''}{names}")
    return "; ".join(counts) or ("nothing" if record.status == "ok" else "-")
