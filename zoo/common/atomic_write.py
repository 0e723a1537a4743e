"""Write files atomically: write a draft in the folder of the file, then replace the file with the draft in one step."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.common.regular_files import check_regular, resolve_links

__all__ = ["draft_of", "is_draft", "replace_file"]

LONGEST = 255
"""The longest file name that most file systems allow, in bytes."""


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield the path of a draft for the `with` block to write. After the block, the draft replaces the file at `path`.

    The draft is in the folder of the file and has the same suffix. It is flushed to the disk before it replaces the file. If
    the block raises an error, the draft is removed and the file is unchanged.

    Raises:
        OSError: the file cannot be written, or the path points to something that is not a regular file.
    """
    with suppress(FileNotFoundError):
        check_regular(path)
    path = resolve_links(path)  # a link stays a link: the file that it points to is replaced
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


def is_draft(path: Path, name: str) -> bool:
    """Return whether a file is a draft of the file `name`, which a killed process has left."""
    whole = Path(name)
    return re.fullmatch(rf"\.{re.escape(whole.stem)}\.\d+{re.escape(whole.suffix)}", path.name) is not None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all. An existing file is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    with draft_of(path) as draft:
        draft.write_bytes(content)
