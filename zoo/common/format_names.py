"""Format lists of names and counts for messages."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_count", "format_names"]


def format_count(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless the count is 1.

    >>> format_count(1, "image"), format_count(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_names(names: Iterable[object], most: int = 5) -> str:
    """Return the first `most` names as text. If there are more names, the text says how many more.

    >>> format_names(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
