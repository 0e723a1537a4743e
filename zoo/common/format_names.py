"""Format a list of names for a message that has no room for all of them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_names"]


def format_names(names: Iterable[object], most: int = 5) -> str:
    """Return the first `most` names, and how many more there are.

    >>> format_names(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
