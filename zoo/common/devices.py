"""Choose a device, and check whether it ran out of memory or stopped working."""

from __future__ import annotations

import os

import torch

from zoo.errors import ConfigError

__all__ = ["choose_device", "count_cores", "is_out_of_memory", "is_usable"]


def choose_device(asked: str) -> torch.device:
    """Return the requested device. "auto" means the accelerator if there is one, otherwise the CPU.

    Raises:
        ConfigError: the requested device does not exist or cannot be used on this machine.
    """
    if asked == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("nothing is computed on meta")
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as cause:
        reason = str(cause).splitlines()[0]
        raise ConfigError(f"device {asked!r} cannot be used here: {reason}. Use 'auto', or 'cpu'.") from cause
    return device


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_usable(device: torch.device) -> bool:
    """Return whether this process can still compute on the device.

    After an illegal memory access or a failed assertion in a CUDA kernel, every later call in this process fails.
    """
    if device.type == "cpu":
        return True
    try:
        torch.ones(1, device=device).item()  # copies the value back, so it waits for the device
    except RuntimeError:
        return False
    return True


def is_out_of_memory(cause: BaseException) -> bool:
    """Return whether an error (or one of its causes) reports that the device or the host has run out of memory."""
    is_reported = isinstance(cause, RuntimeError) and ("can't allocate memory" in str(cause) or "out of memory" in str(cause))
    if is_reported or isinstance(cause, torch.OutOfMemoryError | MemoryError):
        return True
    return cause.__cause__ is not None and is_out_of_memory(cause.__cause__)
