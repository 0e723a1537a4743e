"""Change process-wide settings for reading images: warning filters and Pillow's limit of pixels."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image

__all__ = ["MOST_PIXELS", "any_number_of_pixels", "told_large", "warnings_as"]

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
"""Of an image that is opened unasked: what Pillow warns of."""

_limit = threading.Lock()
_filters = threading.Lock()


@contextmanager
def any_number_of_pixels() -> Iterator[None]:
    """Lift Pillow's limit; who lifts it is alone."""
    with _limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def warnings_as(action: Literal["error", "ignore"], category: type[Warning]) -> Iterator[None]:
    """Ignore a category of warnings, or raise them; one thread after another, since each puts back what it found."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter(action, category)
        yield


def told_large(path: Path, told: str) -> str:
    """Return what is said of a file that has more pixels."""
    return (
        f"{path}: larger than is opened unasked: {told}, and {MOST_PIXELS:,} is the limit. If you trust the file, give "
        "any_size=True (--any-size)"
    )
