"""The commands that say what there is: list, show, plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zoo.cli.answers import answer, console, note
from zoo.cli.application import app
from zoo.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.registry.discovery import PluginRecord

__all__: list[str] = []


COLUMNS: dict[str, Callable[[Any], str]] = {
    "id": lambda entry: entry.id,
    "full-id": lambda entry: entry.full_id,
    "plugin": lambda entry: entry.plugin,
    "distribution": lambda entry: f"{entry.distribution} {entry.version}".strip(),
    "licence": lambda entry: entry.spec.licence or "not stated",
    "weights-licence": lambda entry: licences_of_weights(entry.spec),
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
            help=f"A table of these, by commas: {', '.join(COLUMNS)}.",
            show_default="the ids alone, one a line",
        ),
    ] = None,
) -> None:
    """List the ids of all encoders or decoders, one a line, or as a table of what is known of each."""
    from zoo.registry.registry import default_registry

    wanted = _columns(columns)
    registry = default_registry()
    entries = registry.matching("encoder" if kind == "encoders" else "decoder", pattern)
    if wanted is None:
        for entry in entries:
            answer(entry.id)
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(*wanted, header_style="bold")
        for entry in entries:
            table.add_row(*(Text(COLUMNS[name](entry)) for name in wanted))
        console().print(table)
    if broken := registry.broken():
        note(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)")


def _columns(names: str | None) -> list[str] | None:
    if names is None:
        return None
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in COLUMNS:
            raise OptionError(f"--columns: there is no column {name!r}. Choose of: {', '.join(COLUMNS)}.")
    return wanted


def licences_of_weights(spec: Any) -> str:
    """Return the licence of an encoder's weights; where they differ, each with the names it is for."""
    if not getattr(spec, "weights", ()):
        return "no weights"
    names: dict[str, list[str]] = {}
    for name in spec.tags or spec.weights:
        names.setdefault(spec.licence_of_weights(name) or "not known", []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{licence}: {', '.join(of)}" for licence, of in names.items())


@app.command()
def show(id: Annotated[str, typer.Argument(help="An encoder's or a decoder's id.", show_default=False)]) -> None:
    """Show what is known of an encoder or a decoder: source, licence, maps or needs, options."""
    from rich.table import Table
    from rich.text import Text

    from zoo.registry.registry import default_registry
    from zoo.registry.specs import EncoderSpec

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
        facts["weights' licence"] = licences_of_weights(spec)
        if spec.tags:
            facts["tags"] = ", ".join(spec.tags)
        facts["feature maps"] = "\n".join(map(str, entry.pyramid({})))
        facts["image sizes"] = str(entry.sizes({}))
        if strides := entry.output_strides({}):
            facts["output strides"] = f"{', '.join(map(str, strides))} (option output_stride)"
    else:
        facts["needs"] = str(entry.needs({}))
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
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Exit with status 1 if any plugin could not be loaded.")] = False,
) -> None:
    """Show the installed plugins: where they come from, what they give, and what is wrong with those that fail."""
    from rich.table import Table
    from rich.text import Text

    from zoo.registry.registry import default_registry

    table = Table("plugin", "distribution", "version", "gives", "import ms", "status", header_style="bold")
    records = default_registry().records()
    for record in records:
        found = record.found
        table.add_row(
            *map(Text, (found.name, found.distribution, found.version, _gives(record))),
            Text("-" if record.status == "disabled" else f"{record.load_seconds * 1e3:.0f}", justify="right"),
            Text(record.status, style=STYLES[record.status]),
        )
    screen = console()
    screen.print(table)
    for record in records:
        if record.error:
            screen.print(Text(f"{record.found.name}: {record.error}"), soft_wrap=True)
        elif record.found.disabled_by:
            screen.print(
                Text(f"{record.found.name}: switched off by the environment variable {record.found.disabled_by}."),
                soft_wrap=True,
            )
    if check and default_registry().broken():
        raise typer.Exit(1)


STYLES = {"ok": "green", "failed": "red", "disabled": "dim"}
NAMED = 12
"""Up to how many names a plugin's line shows them."""


def _gives(record: PluginRecord) -> str:
    parts = []
    for kind, specs in (("encoder", record.encoders), ("decoder", record.decoders)):
        named = f" ({', '.join(spec.name for spec in specs)})" if len(specs) <= NAMED else ""
        if specs:
            parts.append(f"{len(specs):,} {kind}{'s' if len(specs) > 1 else ''}{named}")
    return "; ".join(parts) or ("nothing" if record.status == "ok" else "-")
