"""Suggest known names that are similar to an unknown name, for error messages."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(asked: str, known: Iterable[str], *, most: int = 1, likeness: float = 0.6) -> str:
    """Return a space and a sentence that suggests the most similar known names. Return "" if no name is similar.

    Args:
        asked: the name that was not found.
        known: the known names.
        most: the largest number of names to suggest.
        likeness: how similar a name must be to be suggested, from 0 to 1.
    """
    import difflib  # imported only after a mistake, so that commands start faster

    close = difflib.get_close_matches(asked, list(known), n=most, cutoff=likeness)
    shown = map(repr, close) if most == 1 else close
    return f" Did you mean {', '.join(shown)}?" if close else ""
