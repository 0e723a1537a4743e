"""The commands that say what there is: list, show, plugins."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from zoo.cli.application import app
from zoo.cli.console import console

__all__: list[str] = []


class KindName(StrEnum):
    """What `zoo list` lists."""

    encoders = "encoders"
    decoders = "decoders"


@app.command("list")
def list_ids(
    kind: Annotated[KindName, typer.Argument(help="What to list.", show_default=False)],
    pattern: Annotated[
        str | None, typer.Argument(help="A glob ('convnext*') or a part of the name ('convnext').", show_default=False)
    ] = None,
) -> None:
    """List the ids of all encoders or decoders, one a line."""
    from zoo.registry import default_registry

    registry = default_registry()
    for entry in registry.matching("encoder" if kind is KindName.encoders else "decoder", pattern):
        typer.echo(entry.id)
    if broken := registry.broken():
        typer.echo(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)", err=True)


@app.command()
def show(id: Annotated[str, typer.Argument(help="An encoder's or a decoder's id.", show_default=False)]) -> None:
    """Show what is known of an encoder or a decoder: source, licence, maps or needs, options."""
    from rich.table import Table
    from rich.text import Text

    from zoo.planning import needs_of, output_strides_of, pyramid_of, sizes_of
    from zoo.registry import default_registry
    from zoo.specs import EncoderSpec

    entry: Any = default_registry().either(id)
    spec = entry.spec
    facts = {
        "id": entry.id,
        "full id": entry.full_id,
        "kind": entry.kind,
        "plugin": f"{entry.plugin} ({entry.distribution} {entry.version})",
        "source": spec.source or "not stated",
        "licence": spec.licence or "not stated",
    }
    if isinstance(spec, EncoderSpec):
        facts["weights"] = ", ".join(("None", *map(repr, spec.weights), "a file's path"))
        if spec.tags:
            facts["tags"] = ", ".join(spec.tags)
        facts["feature maps"] = "\n".join(map(str, pyramid_of(entry, {})))
        facts["image sizes"] = str(sizes_of(entry, {}))
        if strides := output_strides_of(entry, {}):
            facts["output strides"] = f"{', '.join(map(str, strides))} (option output_stride)"
    else:
        facts["needs"] = str(needs_of(entry, {}))
    if spec.options is None:
        facts["options"] = "not declared; the factory is asked when it is built"
    else:
        facts["options"] = (
            "\n".join(f"{option.name} = {option.default!r}: {option.summary}" for option in spec.options) or "none"
        )
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    console().print(grid)


@app.command()
def plugins() -> None:
    """Show the installed plugins: where they come from, what they give, and what is wrong with those that fail."""
    from rich.table import Table
    from rich.text import Text

    from zoo.registry import default_registry

    table = Table("plugin", "distribution", "version", "encoders", "decoders", "load ms", "status", header_style="bold")
    for record in default_registry().records():
        found = record.found
        counts = ("-", "-") if record.error else (str(len(record.encoders)), str(len(record.decoders)))
        facts = (found.name, found.distribution, found.version, *counts, f"{record.load_seconds * 1e3:.0f}")
        status = Text("failed", style="red") if record.error else Text("ok", style="green")
        table.add_row(*map(Text, facts), status)
    screen = console()
    screen.print(table)
    for record in default_registry().broken():
        screen.print(Text(str(record.error)))
