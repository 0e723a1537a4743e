"""Check what a path points to. zoo reads and replaces only regular files, since reading a pipe or a device may never end."""

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
    """Raise an error unless a path points to a regular file.

    Raises:
        OSError: the path does not exist (`FileNotFoundError`), is a loop of symbolic links, or points to something that is not
            a regular file. `strerror` says what the path points to.
    """
    kind = _kind(path)
    if kind != stat.S_IFREG:
        found = KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"it is {found}, not a regular file", str(path))


def is_folder(path: Path) -> bool:
    """Return whether a path points to a folder. Return False if this is unknown, for example if the path is too long."""
    return _is_one_of(path, stat.S_IFDIR)


def is_stream(path: Path) -> bool:
    """Return whether a path points to a pipe, a terminal or another character device.

    Unlike files, these cannot be replaced.
    """
    return _is_one_of(path, stat.S_IFIFO, stat.S_IFCHR)


def resolve_links(path: str | PathLike[str]) -> Path:
    """Return the absolute path of the file or folder that a path points to, with all symbolic links resolved.

    Raises:
        OSError: the path is a loop of symbolic links, or is invalid.
    """
    try:
        return Path(path).resolve()
    except RuntimeError as cause:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from cause
    except ValueError as cause:  # a null character
        raise OSError(errno.EINVAL, str(cause), str(path)) from cause


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal digits, without reading the whole file into memory at once.

    Raises:
        OSError: the file cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_at(path: str | PathLike[str]) -> list[Path]:
    """Return the regular files at a path: the file itself or, for a folder, the files directly in it.

    The list is empty if there is no such file.
    """
    place = expand_user(path)
    return [each for each in (sorted(place.iterdir()) if is_folder(place) else [place]) if is_regular(each)]


def expand_user(path: str | PathLike[str]) -> Path:
    """Return a path with `~` or `~NAME` replaced by the user's home folder. If there is no such user, return the path."""
    place = Path(path)
    try:
        return place.expanduser()
    except RuntimeError:
        return place


def is_regular(path: Path) -> bool:
    """Return whether a path points to a regular file. Return False if this is unknown, for example if the path is too long."""
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
