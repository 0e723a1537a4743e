"""Escape the control characters in text of unknown origin, so that a terminal can show the text safely."""

from __future__ import annotations

import re

__all__ = ["printable"]

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""The characters to escape: control characters except tab and newline, line and paragraph separators, characters that change
the direction of text, and lone surrogates."""


def printable(text: str) -> str:
    r"""Return the text with each control character escaped as in a Python string.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
