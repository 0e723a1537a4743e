"""Write files whole or not at all: to a draft beside them first, which then replaces them in one step."""

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
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a path beside a file's, with the same suffix; the file written there replaces the file at the end.

    The draft is on the disk before it replaces the file. After an error it is removed, and the file is unchanged.

    Raises:
        OSError: it cannot be written, or the path is not a regular file's.
    """
    with suppress(FileNotFoundError):
        check_regular(path)
    path = resolve_links(path)  # a link stays, and its file is replaced
    name = f".{path.stem}.{os.getpid()}{path.suffix}"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:32]}.{os.getpid()}{path.suffix}"
    draft = path.with_name(name)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with draft_of(path) as draft:
        draft.write_bytes(content)
