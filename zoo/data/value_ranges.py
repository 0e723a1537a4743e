"""Which values images have, and what of that a person should know before training on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["range_notes"]

SMALL_SHARE = 0.25
"""Of the range from 0 to 1. Images that use less of it are said."""


def range_notes(ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line for each type of number whose images are not spread over 0 to 1.

    Args:
        ranges: by the name of NumPy's type, the lowest and the highest value of all images.
    """
    notes = [note for name, (low, high) in ranges.items() if (note := _note(np.dtype(name), low, high))]
    if len(ranges) > 1:
        notes.append(f"images have numbers of different types ({', '.join(ranges)}), each scaled by the range of its own type")
    return notes


def _note(dtype: np.dtype[Any], low: float, high: float) -> str | None:
    found = f"images have {dtype} values from {low:g} to {high:g}"
    if dtype.kind in "iu":
        bottom, top = np.iinfo(dtype).min, np.iinfo(dtype).max
        span = float(top) - bottom
        is_small = (high - min(low, 0)) / span < SMALL_SHARE
        if not is_small and (bottom == 0 or low < 0):
            return None
        empty = "most" if is_small else "half"
        return (
            f"{found}, scaled by the range of the type ({bottom} to {top}): they become {(low - bottom) / span:.3g} to "
            f"{(high - bottom) / span:.3g}, and {empty} of 0 to 1 is empty. Save them as floats in 0 to 1 if that is not meant"
        )
    if dtype.kind != "f":
        return None
    if low < 0 or high > 1:
        return f"{found}, used as they are. Pretrained weights expect 0 to 1"
    if high - low < SMALL_SHARE:
        return f"{found}, used as they are: most of 0 to 1 is empty"
    return None
