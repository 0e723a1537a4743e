"""Notes on the value ranges of images, which a user should know before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["range_notes"]

SMALL_SHARE = 0.25
"""Images that use less than this share of the range from 0 to 1 get a note."""


def range_notes(ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line for each dtype whose values do not fill the range from 0 to 1.

    Args:
        ranges: the lowest and the highest image value of each NumPy dtype, by its name.
    """
    notes = [note for name, (low, high) in ranges.items() if (note := _note(np.dtype(name), low, high))]
    if len(ranges) > 1:
        notes.append(f"images have different dtypes ({', '.join(ranges)}), each scaled by the range of its own dtype")
    return notes


def _note(dtype: np.dtype[Any], low: float, high: float) -> str | None:
    text = f"images have {dtype} values from {low:g} to {high:g}"
    if dtype.kind in "iu":
        bottom, top = np.iinfo(dtype).min, np.iinfo(dtype).max
        span = float(top) - bottom
        is_small = (high - min(low, 0)) / span < SMALL_SHARE
        if not is_small and (bottom == 0 or low < 0):
            return None
        empty = "most" if is_small else "half"
        return (
            f"{text}, scaled by the range of the dtype ({bottom} to {top}): they become {(low - bottom) / span:.3g} to "
            f"{(high - bottom) / span:.3g}, and {empty} of 0 to 1 is empty. If this is not intended, save "
            "them as floats from 0 to 1"
        )
    if dtype.kind != "f":
        return None
    if low < 0 or high > 1:
        return f"{text}, used as they are. Pretrained weights expect 0 to 1"
    if high - low < SMALL_SHARE:
        return f"{text}, used as they are: most of 0 to 1 is empty"
    return None
