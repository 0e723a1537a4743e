"""Which process measures a run, and whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_alive", "owner"]


def owner() -> str:
    """Return what tells this process from any other: machine, number and start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Whether another process on this machine still measures; one on another machine is taken to be gone."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """Return when a process began, in the kernel's ticks, to tell it from a later one of the same number; else ''."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
