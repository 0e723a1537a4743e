"""Convert tables to plain text, CSV, JSON and Markdown, and write files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from zoo.common.atomic_write import replace_file
from zoo.common.printable import printable
from zoo.common.regular_files import is_stream, resolve_links
from zoo.errors import OptionError

__all__ = ["FULL_WIDTH", "PrintableConsole", "csv_text", "escaped", "json_text", "plain_text", "table_row", "write_whole"]

FULL_WIDTH = 190
"""The width of a table in a file or a pipe, in characters. Unlike a terminal, a file or a pipe has no width of its own."""


class PrintableConsole(Console):
    """A Rich console that escapes the control characters in its input. Only those that Rich itself adds reach the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the segments to print, with control characters escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def plain_text(view: RenderableType, width: int = FULL_WIDTH) -> str:
    """Return the text that Rich would print, without colors and trailing spaces."""
    console = PrintableConsole(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(view)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def csv_text(records: Sequence[Mapping[str, Any]], fields: Sequence[str] = ()) -> str:
    """Return flat records as CSV. The first line has the names of the columns: `fields`, or the keys of the first record."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=fields or list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def json_text(facts: Any, indent: int | None = None) -> str:
    """Return data as JSON text. NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_finite(facts), indent=indent, allow_nan=False)


def _finite(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {name: _finite(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def table_row(cells: Iterable[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Escape the characters that Markdown or HTML would interpret, and replace each line break by a space."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(sign, written)
    return text


def write_whole(output: Path, content: str | bytes, advice: str = "") -> None:
    """Write a file completely or not at all, so that an error never damages an existing file.

    Missing folders are created. If `output` is a symbolic link, the file that it points to is replaced. If `output` is a pipe
    or a terminal, the content is written to it directly.

    Raises:
        OptionError: the file cannot be written. The message ends with `advice`.
    """
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    try:
        if is_stream(output):
            output.write_bytes(data)
            return
        resolve_links(output).parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, data)
    except OSError as cause:
        raise OptionError(f"--output {output} cannot be written: {cause.strerror}.{advice and ' '}{advice}") from cause
