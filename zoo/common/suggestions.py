"""What may have been meant by a name that nothing has, as every such error says it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(asked: str, known: Iterable[str], *, most: int = 1, likeness: float = 0.6) -> str:
    """Return a sentence that names what is like it, with the space before it; "" where nothing is.

    Args:
        asked: the name that was not found.
        known: the names that there are.
        most: how many are named.
        likeness: how like a name must be to be named, 0 to 1.
    """
    import difflib  # only where something went wrong: what lists starts without it

    close = difflib.get_close_matches(asked, list(known), n=most, cutoff=likeness)
    shown = map(repr, close) if most == 1 else close
    return f" Did you mean {', '.join(shown)}?" if close else ""
