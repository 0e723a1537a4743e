"""Which device computes: the one asked for, or the one that is there."""

from __future__ import annotations

import torch

from zoo.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(asked: str) -> torch.device:
    """Return the accelerator where there is one, else the CPU; or the device asked for, tried.

    Raises:
        ConfigError: there is no such device here.
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
