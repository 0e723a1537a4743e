"""Count the parameters of a module."""

from __future__ import annotations

from torch import nn

__all__ = ["count_parameters"]


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module, trainable or not. Shared parameters count once."""
    return sum(parameter.numel() for parameter in module.parameters())
