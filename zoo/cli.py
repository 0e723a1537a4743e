"""The command line: `zoo list`, `show`, `explain`, `bench`, `plugins`. A user's mistake is one message and exit status 2."""

from __future__ import annotations

import gc
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zoo.errors import NegotiationError, OptionError, UnknownIdError, ZooError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app", "main"]

app = typer.Typer(
    name="zoo",
    help="Pair any image encoder with any segmentation decoder, and measure which pairing is worth using.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WIDE = 190
"""How wide a table may be where it goes to a file or a pipe, which have no width of their own."""


class KindName(StrEnum):
    """What `zoo list` lists."""

    encoders = "encoders"
    decoders = "decoders"


class FormatName(StrEnum):
    """How `zoo bench` writes the table."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


SUFFIXES = {".md": FormatName.markdown, ".csv": FormatName.csv, ".json": FormatName.json, ".txt": FormatName.table}


def main() -> NoReturn:
    """Run the command line."""
    try:
        app()
    except ZooError as error:
        _fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text("Error: ", style="bold red") + Text(message), soft_wrap=True)
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
    ids = registry.ids("encoder" if kind is KindName.encoders else "decoder", pattern)
    for id in ids:
        typer.echo(id)
    if broken := registry.broken():
        typer.echo(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)", err=True)
    if pattern and not ids:
        raise UnknownIdError(f"No {kind.value.removesuffix('s')} matches {pattern!r}. `zoo list {kind.value}` shows all.")


@app.command()
def show(id: Annotated[str, typer.Argument(help="An encoder's or a decoder's id.", show_default=False)]) -> None:
    """Show what is known of an encoder or a decoder: source, licence, maps or needs, options."""
    from rich.table import Table
    from rich.text import Text

    from zoo.planning import needs_of, pyramid_of
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
        try:
            facts["feature maps"] = "\n".join(map(str, pyramid_of(entry, {})))
        except NegotiationError as reason:
            facts["feature maps"] = str(reason)
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
    _console().print(grid)


@app.command()
def explain(
    encoder: Annotated[str, typer.Argument(help="An encoder's id.", show_default=False)],
    decoder: Annotated[str, typer.Argument(help="A decoder's id.", show_default=False)],
    levels: Annotated[
        int | None, typer.Option(help="How many strides to use, counted from the finest.", show_default="all")
    ] = None,
    adapters: Annotated[str, typer.Option(help="'auto', or 'none' to insert nothing.")] = "auto",
    size_policy: Annotated[str, typer.Option(help="'auto', 'pad', 'resize' or 'error'.")] = "auto",
    encoder_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the encoder; may be repeated.")
    ] = None,
    decoder_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the decoder; may be repeated.")
    ] = None,
) -> None:
    """Show the plan of a pairing: which feature map goes where, through what, and why."""
    from zoo.explanation import plan_view
    from zoo.pairing import Pairing
    from zoo.planning import resolve

    pairing = Pairing(
        encoder,
        decoder,
        levels=levels,
        adapters=adapters,
        size_policy=size_policy,
        encoder_options=_options(encoder_option),
        decoder_options=_options(decoder_option),
    )
    _console().print(plan_view(resolve(pairing).plan, pairing))


@app.command()
def bench(
    config: Annotated[Path, typer.Argument(help="The run's YAML file.", show_default=False)],
    format: Annotated[
        FormatName | None,
        typer.Option("--format", "-f", help="How to write the table.", show_default="table, or by --output's suffix"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table to this file.", show_default=False)
    ] = None,
    store: Annotated[Path, typer.Option(help="The SQLite file that keeps each result as it comes.")] = Path(
        "results/zoo.sqlite"
    ),
) -> None:
    """Measure every pairing of a configuration side by side, and print one table; an interrupted run goes on.

    A pairing that fails is a row with its error. Exit status 1: every one failed.
    """
    from zoo.benchmark import bench as run_bench
    from zoo.benchmark import load_config
    from zoo.benchmark.formats import render, terminal_view

    gc.enable()  # switched off by the `zoo` script for a quick start
    form = format or _format_of(output)
    wanted = load_config(config)
    if output is not None:
        _check_writable(output)
    try:
        table = run_bench(wanted, store=store)
    except KeyboardInterrupt:
        _fail("Interrupted. What was measured is kept; the same command goes on from there.", 130)
    if output is not None:
        try:
            output.write_text(render(table, form.value), encoding="utf-8")
        except OSError as cause:
            raise OptionError(f"--output {output} cannot be written: {cause.strerror}. The results are in {store}.") from cause
    if output is None and form is not FormatName.table:
        typer.echo(render(table, form.value), nl=False)
        return
    console = _console()
    console.print(terminal_view(table, console.width))
    if output is not None:
        typer.echo(f"Written to {output}.", err=True)
    if all(row.error for row in table.rows):
        raise typer.Exit(1)


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
    console = _console()
    console.print(table)
    for record in default_registry().broken():
        console.print(Text(str(record.error)))


def _console() -> Console:
    """Return a console of the terminal's width, or wide enough for whole tables where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def _options(given: list[str] | None) -> dict[str, Any]:
    import yaml

    options = {}
    for entry in given or ():
        name, sign, value = entry.partition("=")
        if not sign or not name:
            raise OptionError(f"An option is written NAME=VALUE, such as norm=group; found {entry!r}.")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as cause:
            raise OptionError(f"The value of {entry!r} is no plain YAML value: {' '.join(str(cause).split())}.") from cause
    return options


def _format_of(output: Path | None) -> FormatName:
    if output is None:
        return FormatName.table
    if output.suffix not in SUFFIXES:
        raise OptionError(
            f"--output {output}: the suffix says no format. Use one of {', '.join(SUFFIXES)}, or give --format as well."
        )
    return SUFFIXES[output.suffix]


def _check_writable(output: Path) -> None:
    """Find out before an hour of measuring, not after it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as cause:
        raise OptionError(f"--output {output} cannot be written: {cause.strerror}.") from cause
