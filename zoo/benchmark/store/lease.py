"""The process that measures a run, and whether it is still alive."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_alive", "owner"]


def owner() -> str:
    """Return an identity of this process: machine, number and start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Return whether another process on this machine is still measuring; one on another machine counts as gone."""
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
    """Return when a process began, in the kernel's ticks, to tell it from a later one of the same number; else ''."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
