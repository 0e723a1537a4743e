"""Identify the process that measures a run, and check whether it is still alive."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_alive", "owner"]


def owner() -> str:
    """Return an identifier of this process: host name, process id and start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Return whether `owner` identifies another process that is still running on this machine.

    Return False for the calling process itself, and for a process on another machine, which cannot be checked.
    """
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Return when a process started, in kernel ticks; "" if unknown.

    The start time distinguishes the process from a later process with the same id.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
