"""Format lists of names for messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_names"]


def format_names(names: Sequence[str], *, most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f", and {more} more" if more > 0 else "")
