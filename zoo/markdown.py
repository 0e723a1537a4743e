"""Table rows and plain text as a Markdown page holds them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["escaped", "table_row"]


def table_row(cells: Iterable[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Keep what plugins call themselves from being read as Markdown or HTML."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(sign, written)
    return text
