"""Options and functions that several commands share, for the store, formats, plugin files and tables."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from zoo.cli.answers import answer, note, show_parts
from zoo.common.choices import Format
from zoo.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoo.benchmark.store.store import Store
    from zoo.benchmark.table.table import Table
    from zoo.common.grid import Document

__all__ = [
    "SUFFIXES",
    "DecoderArgument",
    "EncoderArgument",
    "FormatOption",
    "LegendOption",
    "OutputOption",
    "PluginOption",
    "RunsArgument",
    "StoreOption",
    "check_writable",
    "choose_format",
    "complete_id",
    "load_plugins",
    "opened_store",
    "read_table",
    "show_results",
    "show_table",
]


_F = TypeVar("_F", bound=str)

RunsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Numbers or names of runs.", show_default="the latest")
]
StoreOption = Annotated[Path, typer.Option(help="The SQLite file of the results.")]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="The format of the table.", show_default="table, or by --output's suffix"),
]
LegendOption = Annotated[bool, typer.Option("--legend", help="Add an explanation of the columns below the table.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write the table to this file.", show_default=False)
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file that registers encoders or decoders; may be repeated.", show_default=False),
]


def _complete_encoder(incomplete: str) -> list[str]:
    from zoo.registry.registry import list_encoders

    return [id for id in list_encoders() if id.startswith(incomplete)]


def _complete_decoder(incomplete: str) -> list[str]:
    from zoo.registry.registry import list_decoders

    return [id for id in list_decoders() if id.startswith(incomplete)]


def complete_id(incomplete: str) -> list[str]:
    """Return the ids of encoders and decoders that begin with the typed text, for completion in the shell."""
    return _complete_encoder(incomplete) + _complete_decoder(incomplete)


EncoderArgument = Annotated[str, typer.Argument(help="An encoder's id.", show_default=False, autocompletion=_complete_encoder)]
DecoderArgument = Annotated[str, typer.Argument(help="A decoder's id.", show_default=False, autocompletion=_complete_decoder)]

SUFFIXES: dict[str, Format] = {".txt": "table", ".md": "markdown", ".csv": "csv", ".json": "json"}


@contextmanager
def opened_store(store: Path) -> Iterator[Store]:
    """Open an existing results store for reading.

    Raises:
        StoreError: the file does not exist, or has content that `zoo bench` did not write.
    """
    from zoo.benchmark.store.store import Store

    with closing(Store(store, must_exist=True)) as opened, opened.reading():
        yield opened


def choose_format(format: _F | None, output: Path | None, suffixes: Mapping[str, _F]) -> _F:
    """Return the requested format. If none is requested, the suffix of the output file determines the format.

    Args:
        format: the requested format.
        output: the output file.
        suffixes: a mapping from suffixes to formats. If there is neither a requested format nor an output file, the first
            format is used.

    Raises:
        OptionError: no format is requested, and the suffix of the output file is not in `suffixes`.
    """
    if format is not None:
        return format
    if output is None:
        return next(iter(suffixes.values()))
    if output.suffix not in suffixes:
        raise OptionError(f"--output {output}: no format has this suffix. Use one of {', '.join(suffixes)}, or add --format.")
    return suffixes[output.suffix]


def show_table(document: Document, form: Format, output: Path | None, *, kept: str) -> None:
    """Write a document to the output file, and show it as a table. Without a file, write it to standard output as `form`.

    Args:
        document: the document.
        form: the format of the file or, without a file, of standard output.
        output: the file; None for no file.
        kept: a sentence that says where the results are stored. If the file cannot be written, this sentence is appended to the
            error message.
    """
    if output is None and form != "table":
        answer(document.render(form), nl=False)
        return
    if output is not None:
        from zoo.common.rendering import write_whole

        write_whole(output, document.render(form), kept)
    show_parts(*document.parts)
    if output is not None:
        note(f"Written to {output}.")


def load_plugins(files: Sequence[Path] | None) -> None:
    """Run the Python files that were passed with `--plugin`."""
    from zoo.registry.plugin_files import load_plugin_file

    for file in files or ():
        load_plugin_file(file)


def check_writable(output: Path) -> None:
    """Raise an OptionError if a file cannot be written, so that the error comes before an hour of measuring and not after it.

    A missing file and missing folders are created.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as cause:
        raise OptionError(f"--output {output} cannot be written: {cause.strerror}.") from cause


def read_table(opened: Store, runs: Sequence[str] | None) -> Table:
    """Return the table of these runs or, if no run is named, of the latest run."""
    from zoo.benchmark.analysis.selection import select_runs
    from zoo.benchmark.table.table import table_of

    return table_of(opened, *select_runs(opened, runs or []))


def show_results(shown: Document, form: Format, output: Path | None, store: Path) -> None:
    """Check that the output file can be written. Then write and show a document with results, as `show_table` does."""
    if output is not None:
        check_writable(output)
    show_table(shown, form, output, kept=f"The results are in {store}.")
