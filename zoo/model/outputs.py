"""Check the shapes of the outputs of a model's parts.

The checks set no attributes of the modules, so they also work in exported graphs and in the replicas of `nn.DataParallel`.
"""

from __future__ import annotations

from torch import Tensor

from zoo.errors import PluginError
from zoo.model.layers.resizing import is_open

__all__ = ["check_map", "describe"]


def check_map(output: object, *, of: str, channels: int, batch: int, remedy: str) -> Tensor:
    """Check that the output of a model's part is one floating-point tensor (batch, channels, h, w), and return it.

    Args:
        output: the output to check.
        of: the name of the part for the error message.
        channels: the expected size of the second axis.
        batch: the expected size of the first axis. During an export, it may be a symbolic number.
        remedy: the end of the error message.

    Raises:
        PluginError: the output is not such a tensor.
    """
    if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
        found = output.shape[0]
        if output.shape[1] == channels and (is_open(found, batch) or found == batch):
            return output
    raise PluginError(
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
