"""Count the parameters of a module, and find their dtype."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["count_parameters", "floating_dtype"]


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module, trainable or not. Shared parameters count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def floating_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of a module's first floating-point parameter; None if it has none.

    This takes less time than `module.parameters()`.
    """
    for entry in module._parameters.values():
        if entry is not None and entry.is_floating_point():
            return entry.dtype
    for child in module._modules.values():
        if child is not None and (dtype := floating_dtype(child)):
            return dtype
    return None
