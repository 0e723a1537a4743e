"""What the tables share on their way to a file: plain text, CSV, and the pieces of a Markdown page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType

__all__ = ["FULL_WIDTH", "csv_text", "escaped", "plain_text", "table_row"]

FULL_WIDTH = 190
"""How wide a table may be where it goes to a file or a pipe, which have no width of their own."""


def plain_text(view: RenderableType, width: int = FULL_WIDTH) -> str:
    """Return what rich would print without colours, each line without what trails it."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(view)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return flat records of one shape as CSV, the first line their names."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def table_row(cells: Iterable[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Keep what plugins call themselves from being read as Markdown or HTML."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(sign, written)
    return text
