"""What the commands share: options, the store, the console, the formats, a table shown and written."""

from __future__ import annotations

from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.answers import answer, console, note
from zoo.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoo.benchmark.store.store import Store
    from zoo.benchmark.table.table import Table
    from zoo.common.grid import Document

__all__ = [
    "STORE",
    "FormatName",
    "FormatOption",
    "OutputOption",
    "RunsArgument",
    "StoreOption",
    "check_writable",
    "format_of",
    "opened_store",
    "read_table",
    "show_results",
    "show_table",
]


class FormatName(StrEnum):
    """How `zoo bench` and `zoo matrix` write their table."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


RunsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Numbers or names of runs.", show_default="the latest")
]
StoreOption = Annotated[Path, typer.Option(help="The SQLite file that keeps the results.")]
FormatOption = Annotated[
    FormatName | None,
    typer.Option("--format", "-f", help="How to write it.", show_default="table, or by --output's suffix"),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Also write it to this file.", show_default=False)]
STORE = Path("results/zoo.sqlite")  # zoo.benchmark's, which takes long to import; a test holds the two together

SUFFIXES = {".md": FormatName.markdown, ".csv": FormatName.csv, ".json": FormatName.json, ".txt": FormatName.table}


@contextmanager
def opened_store(store: Path) -> Iterator[Store]:
    """Open the results store that is there; it is read within, and what was read is shown.

    Raises:
        StoreError: there is none, or its facts are not as `zoo bench` writes them.
    """
    from zoo.benchmark.store.store import Store

    with closing(Store(store, must_exist=True)) as opened, opened.reading():
        yield opened


def format_of(output: Path | None) -> FormatName:
    """Return the format that an output file's suffix names; the table where there is no file."""
    if output is None:
        return FormatName.table
    if output.suffix not in SUFFIXES:
        raise OptionError(
            f"--output {output}: the suffix says no format. Use one of {', '.join(SUFFIXES)}, or give --format as well."
        )
    return SUFFIXES[output.suffix]


def show_table(document: Document, form: FormatName, output: Path | None, *, kept: str) -> None:
    """Write a document to the output file, and show it on the terminal; a format without a file goes to stdout alone.

    Args:
        document: with its tables.
        form: of the file, or of what stdout gets.
        output: the file.
        kept: ends the error that the file cannot be written: where the results are.
    """
    if output is None and form is not FormatName.table:
        answer(document.render(form.value), nl=False)
        return
    if output is not None:
        from zoo.common.rendering import write_whole

        write_whole(output, document.render(form.value), kept)
    screen = console()
    screen.print(document.view(screen.width))
    if output is not None:
        note(f"Written to {output}.")


def check_writable(output: Path) -> None:
    """Find out before an hour of measuring, not after it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except OSError as cause:
        raise OptionError(f"--output {output} cannot be written: {cause.strerror}.") from cause


def read_table(opened: Store, runs: Sequence[str] | None) -> Table:
    """Return the table of the runs asked for, by default of the latest."""
    from zoo.benchmark.analysis.selection import select_runs
    from zoo.benchmark.table.table import table_of

    return table_of(opened, *select_runs(opened, runs or []))


def show_results(shown: Document, form: FormatName, output: Path | None, store: Path) -> None:
    """Show what the results store holds, as `show_table` does."""
    if output is not None:
        check_writable(output)
    show_table(shown, form, output, kept=f"The results are in {store}.")
