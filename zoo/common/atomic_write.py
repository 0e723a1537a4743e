"""Files written whole or not at all: beside their place first, then put there in one step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.common.regular_files import check_regular, resolve_links

__all__ = ["draft_of", "replace_file"]

LONGEST = 255
"""Bytes of a file's name, in most file systems."""


@contextmanager
def draft_of(place: Path) -> Iterator[Path]:
    """Give a path beside a file's, with the same suffix; what is written there takes the file's place at the end.

    The draft is on the disk before it takes that place. After an error it is gone, and the file as it was.

    Raises:
        OSError: it cannot be written, or something else than a regular file has its place.
    """
    with suppress(FileNotFoundError):
        check_regular(place)
    place = resolve_links(place)  # a link stays, and its file is replaced
    name = f".{place.stem}.{os.getpid()}{place.suffix}"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{hashlib.sha256(os.fsencode(place.stem)).hexdigest()[:32]}.{os.getpid()}{place.suffix}"
    draft = place.with_name(name)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def replace_file(place: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with draft_of(place) as draft:
        draft.write_bytes(content)
