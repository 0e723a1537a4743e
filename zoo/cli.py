"""The command line, one function a command. A user's mistake is one message and exit status 2."""

from __future__ import annotations

import gc
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zoo.errors import OptionError, ZooError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from zoo.pairing import Pairing

__all__ = ["app", "main"]

app = typer.Typer(
    name="zoo",
    help="Pair any image encoder with any segmentation decoder, and measure which pairing is worth using.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class KindName(StrEnum):
    """What `zoo list` lists."""

    encoders = "encoders"
    decoders = "decoders"


class FormatName(StrEnum):
    """How `zoo bench` and `zoo matrix` write their table."""

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
    _console().print(grid)


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
    from zoo.explanation import plan_view
    from zoo.planning import resolve

    pairing = _pairing(encoder, decoder, levels, image_size, adapters, size_policy, encoder_options, decoder_options)
    _console().print(plan_view(resolve(pairing).plan, pairing))


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

    from zoo.planning import resolve

    pairing = _pairing(encoder, decoder, levels, image_size, adapters, size_policy, encoder_options, decoder_options)
    typer.echo(json.dumps(resolve(pairing).plan.as_dict(), indent=2))


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
    _show_table(
        form,
        output,
        render=lambda name: render(table, name),
        view=lambda width: terminal_view(table, width),
        kept=f"The results are in {store}.",
    )
    if all(row.error for row in table.rows):
        raise typer.Exit(1)


@app.command()
def matrix(
    encoders: Annotated[
        str | None, typer.Option(help="A glob ('convnext*') or a part of the name ('convnext').", show_default="all")
    ] = None,
    decoders: Annotated[
        str | None, typer.Option(help="A glob ('unet-*') or a part of the name ('unet').", show_default="all")
    ] = None,
    format: Annotated[
        FormatName | None,
        typer.Option("--format", "-f", help="How to write the matrix.", show_default="table, or by --output's suffix"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the matrix to this file.", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes build at a time.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build all again, also what is known.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="The SQLite file that keeps each outcome as it comes.", show_default="in the user's cache folder"),
    ] = None,
) -> None:
    """Build every encoder with every decoder on the meta device, and show which pairings work, and through which adapters.

    A pairing that fails is a cell with its error. What is known from an earlier run is not built again. Exit status 1: every
    one failed.
    """
    from zoo.compatibility import matrix as run_matrix
    from zoo.compatibility.formats import render, terminal_view

    gc.enable()  # switched off by the `zoo` script for a quick start
    form = format or _format_of(output)
    if output is not None:
        _check_writable(output)
    try:
        found = run_matrix(encoders, decoders, jobs=jobs, fresh=fresh, cache=cache)
    except KeyboardInterrupt:
        _fail("Interrupted. What was built is kept; the same command goes on from there.", 130)
    _show_table(
        form,
        output,
        render=lambda name: render(found, name),
        view=lambda width: terminal_view(found, width),
        kept="What was built is kept; the same command builds nothing again.",
    )
    if not any(cell.is_ok for cell in found.cells):
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

    from zoo.rendering import FULL_WIDTH

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=FULL_WIDTH)


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
    from zoo.pairing import Pairing

    return Pairing(
        encoder,
        decoder,
        levels=levels,
        image_size=_size(image_size),
        adapters=adapters,
        size_policy=size_policy,
        encoder_options=_options(encoder_options),
        decoder_options=_options(decoder_options),
    )


def _size(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    height, _, width = given.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise OptionError(f"--image-size is written HEIGHTxWIDTH, such as 256x320; found {given!r}.")
    return int(height), int(width)


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


def _show_table(
    form: FormatName,
    output: Path | None,
    *,
    render: Callable[[str], str],
    view: Callable[[int], RenderableType],
    kept: str,
) -> None:
    """Write the table to the output file, and show it on the terminal; a format without a file goes to stdout alone."""
    if output is None and form is not FormatName.table:
        typer.echo(render(form.value), nl=False)
        return
    if output is not None:
        try:
            output.write_text(render(form.value), encoding="utf-8")
        except OSError as cause:
            raise OptionError(f"--output {output} cannot be written: {cause.strerror}. {kept}") from cause
    console = _console()
    console.print(view(console.width))
    if output is not None:
        typer.echo(f"Written to {output}.", err=True)


def _check_writable(output: Path) -> None:
    """Find out before an hour of measuring, not after it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as cause:
        raise OptionError(f"--output {output} cannot be written: {cause.strerror}.") from cause
