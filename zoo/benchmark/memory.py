"""How much memory a process and a device hold, and whether an error says that there is no more."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = ["available_bytes", "device_peaks", "forget_peaks", "peak_resident_bytes", "resident_bytes"]

CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device | None = None) -> int:
    """Return how many bytes may still be taken: of the machine or the container around it, or of the accelerator."""
    if device is not None and device.type != "cpu":
        told: Callable[..., tuple[int, int]] | None = getattr(torch.get_device_module(device), "mem_get_info", None)
        if told is not None:
            return told(device)[0]
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(psutil.Process().memory_info().rss)


def forget_peaks(device: torch.device) -> None:
    """Let the peaks that `peak_resident_bytes` and `device_peaks` tell begin anew."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    backend: Any = None if device.type == "cpu" else torch.get_device_module(device)
    if hasattr(backend, "reset_peak_memory_stats"):
        backend.empty_cache()
        backend.reset_peak_memory_stats(device)


def peak_resident_bytes() -> int | None:
    """Return the most resident memory of this process since its peaks were forgotten; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def device_peaks(device: torch.device) -> tuple[int | None, int | None]:
    """Return the most bytes that the accelerator's allocator gave out, and held; None where it does not count."""
    backend: Any = None if device.type == "cpu" else torch.get_device_module(device)
    if not hasattr(backend, "max_memory_allocated"):
        return None, None
    reserved = backend.max_memory_reserved(device) if hasattr(backend, "max_memory_reserved") else None
    return int(backend.max_memory_allocated(device)), reserved
