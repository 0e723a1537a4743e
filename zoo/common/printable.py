"""Text of strangers as a terminal may show it: control characters are written out, so that they control nothing."""

from __future__ import annotations

import re

__all__ = ["printable"]

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All but the tab and the end of a line; what changes the direction of text and half characters among them."""


def printable(text: str) -> str:
    r"""Return the text with each control character as Python writes it.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
