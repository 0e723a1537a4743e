"""Files that are read or replaced: regular ones alone, since reading a pipe or a device may never end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from os import PathLike
from pathlib import Path

__all__ = ["check_regular", "expand_user", "files_at", "is_folder", "is_regular", "is_stream", "resolve_links", "sha256_of"]

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Raise unless a path leads to a regular file.

    Raises:
        OSError: it does not exist (`FileNotFoundError`), its links lead in a circle, or it is something else, which `strerror`
            says in words.
    """
    kind = _kind(path)
    if kind != stat.S_IFREG:
        found = KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"it is {found}, not a regular file", str(path))


def is_folder(path: Path) -> bool:
    """Return whether a path leads to a folder; unlike `Path.is_dir`, of a name that no file can have, too."""
    return _is_one_of(path, stat.S_IFDIR)


def is_stream(path: Path) -> bool:
    """Return whether a path leads to what is written to as it is: a pipe, a terminal, another device."""
    return _is_one_of(path, stat.S_IFIFO, stat.S_IFCHR)


def resolve_links(path: str | PathLike[str]) -> Path:
    """Return a path without links.

    Raises:
        OSError: its links lead in a circle, or no path is written so.
    """
    try:
        return Path(path).resolve()
    except RuntimeError as cause:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from cause
    except ValueError as cause:  # a null character
        raise OSError(errno.EINVAL, str(cause), str(path)) from cause


def sha256_of(path: Path) -> str:
    """Return the hash of a regular file's bytes in hexadecimal digits; the file is never held in memory as a whole.

    Raises:
        OSError: it cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_at(path: str | PathLike[str]) -> list[Path]:
    """Return the regular file at a path, or those that lie directly in the folder at it; none where there is nothing."""
    place = expand_user(path)
    return [each for each in (sorted(place.iterdir()) if is_folder(place) else [place]) if is_regular(each)]


def expand_user(path: str | PathLike[str]) -> Path:
    """Return a path with the user's folder for `~`; one of a user who does not exist is kept as it is."""
    place = Path(path)
    try:
        return place.expanduser()
    except RuntimeError:
        return place


def is_regular(path: Path) -> bool:
    """Return whether a path leads to a regular file; unlike `Path.is_file`, of a name that no file can have, too."""
    return _is_one_of(path, stat.S_IFREG)


def _is_one_of(path: Path, *kinds: int) -> bool:
    try:
        return _kind(path) in kinds
    except OSError:
        return False


def _kind(path: Path) -> int:
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except ValueError as cause:  # a null character
        raise OSError(errno.EINVAL, str(cause), str(path)) from cause
