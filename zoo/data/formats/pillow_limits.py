"""Change process-wide settings while images are read: warning filters and Pillow's limit on pixels."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image

from zoo.errors import DataError

__all__ = ["MOST_PIXELS", "filter_warnings", "lift_pixel_limit", "size_error"]

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
"""The number of pixels of the largest image that is opened by default. Pillow warns about larger images."""

_limit = threading.Lock()
_filters = threading.Lock()


@contextmanager
def lift_pixel_limit() -> Iterator[None]:
    """Disable Pillow's limit on the number of pixels. The limit is global, so only one thread at a time can disable it."""
    with _limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def filter_warnings(action: Literal["error", "ignore"], category: type[Warning]) -> Iterator[None]:
    """Ignore a category of warnings, or raise them as errors.

    Filters are global, so only one thread at a time can change them.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter(action, category)
        yield


def size_error(path: Path, size: str) -> DataError:
    """Return the error for a file with more pixels than the limit."""
    return DataError(
        f"{path} is too large to open by default ({size}; the limit is {MOST_PIXELS:,} pixels). If you trust the file, set "
        "any_size=True (--any-size)"
    )
