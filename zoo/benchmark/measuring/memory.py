"""Read how much memory is free, and how much this process uses in main memory and on a device."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = [
    "allocated_bytes",
    "available_bytes",
    "peak_allocated_bytes",
    "peak_resident_bytes",
    "reset_peaks",
    "resident_bytes",
]

CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device | None = None) -> int:
    """Return how many bytes of memory are free.

    If `device` is an accelerator that reports its free memory, return that. Otherwise, return the free main memory. In a
    container with a memory limit, this is at most what is left of the limit.
    """
    if device is not None and device.type != "cpu":
        read: Callable[..., tuple[int, int]] | None = getattr(torch.get_device_module(device), "mem_get_info", None)
        if read is not None:
            return read(device)[0]
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def reset_peaks(device: torch.device) -> None:
    """Free unreferenced memory, then reset the peaks that `peak_resident_bytes` and `peak_allocated_bytes` return."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    backend: Any = None if device.type == "cpu" else torch.get_device_module(device)
    if hasattr(backend, "reset_peak_memory_stats"):
        backend.empty_cache()
        backend.reset_peak_memory_stats(device)


def peak_resident_bytes() -> int | None:
    """Return the peak resident memory of this process since `reset_peaks`, in bytes; None if the system does not count it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def allocated_bytes(device: torch.device) -> int | None:
    """Return how many bytes tensors occupy on the accelerator now; None for the CPU, or if it cannot be read."""
    return _counter(device, "memory_allocated")


def peak_allocated_bytes(device: torch.device) -> int | None:
    """Return the peak of `allocated_bytes` since `reset_peaks`; None for the CPU, or if it cannot be read."""
    return _counter(device, "max_memory_allocated")


def _counter(device: torch.device, name: str) -> int | None:
    read = None if device.type == "cpu" else getattr(torch.get_device_module(device), name, None)
    return None if read is None else int(read(device))
