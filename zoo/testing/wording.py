"""How the checks' messages name things."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_line", "some"]


def some(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def first_line(cause: BaseException) -> str:
    """Return an exception's class and the first line of its message."""
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
