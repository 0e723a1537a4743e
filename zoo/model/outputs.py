"""Check the outputs of a model's parts by shape alone; nothing is stored, so it works in a graph and a replica too."""

from __future__ import annotations

from torch import Tensor

from zoo.errors import PluginError
from zoo.model.layers.resizing import is_open

__all__ = ["check_map", "describe"]


def check_map(output: object, *, of: str, channels: int, batch: int, remedy: str) -> Tensor:
    """Return the output of a model's part, which must be one floating-point tensor (batch, channels, h, w).

    Args:
        output: the part's.
        of: names the part in the error.
        channels: the expected size of the second axis.
        batch: the expected size of the first axis; an export may keep it open.
        remedy: ends the error's message.

    Raises:
        PluginError: it is not.
    """
    if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
        found = output.shape[0]
        if output.shape[1] == channels and (is_open(found, batch) or found == batch):
            return output
    raise PluginError(
        f"{of} must return one floating-point tensor of shape ({batch}, {channels}, h, w); found {describe(output)}. {remedy}"
    )


def describe(output: object) -> str:
    """Describe an output: a tensor's shape and dtype, or a container's type and length."""
    if isinstance(output, Tensor):
        dtype = "" if output.is_floating_point() else f" of {output.dtype}"
        return f"a tensor of shape {tuple(output.shape)}{dtype}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of length {len(output)}"
    return f"a value of type {type(output).__name__}"
