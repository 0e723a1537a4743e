"""Check the shapes of the outputs of a model's parts.

The checks set no attributes of the modules, so they also work in exported graphs and in the replicas of `nn.DataParallel`.
"""

from __future__ import annotations

from torch import Tensor

from zoo.errors import PluginError
from zoo.model.layers.resizing import is_open

__all__ = ["describe", "is_map", "wrong_map"]


def is_map(output: object, channels: int, batch: int) -> bool:
    """Return whether the output of a model's part is one floating-point tensor (batch, channels, h, w).

    During an export, the sizes of the first axis may be symbolic numbers, which are not compared.
    """
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
        return False
    found, width, _, _ = output.shape
    return width == channels and (found is batch or is_open(found, batch) or found == batch)


def wrong_map(output: object, *, of: str, channels: int, batch: int, remedy: str) -> PluginError:
    """Return the error for an output for which `is_map` is False.

    Args:
        output: the output.
        of: the name of the part.
        channels: the expected size of the second axis.
        batch: the expected size of the first axis.
        remedy: the end of the error message.
    """
    return PluginError(
        f"{of} must return one floating-point tensor of shape ({batch}, {channels}, h, w); found {describe(output)}. {remedy}"
    )


def describe(output: object) -> str:
    """Return a description of an output: the shape and dtype of a tensor, or the type and length of a container."""
    if isinstance(output, Tensor):
        dtype = "" if output.is_floating_point() else f" of {output.dtype}"
        return f"a tensor of shape {tuple(output.shape)}{dtype}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of length {len(output)}"
    return f"a value of type {type(output).__name__}"
