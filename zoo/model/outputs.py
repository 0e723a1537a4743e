"""Check what a model's parts return, by shape alone: nothing is kept, so it holds in a graph and in a replica as well."""

from __future__ import annotations

from torch import Tensor

from zoo.errors import PluginError
from zoo.model.layers.resizing import is_open

__all__ = ["check_map", "describe"]


def check_map(output: object, *, of: str, channels: int, batch: int, remedy: str) -> Tensor:
    """Return what a part of a model returned, which must be one floating-point tensor (batch, channels, h, w).

    Args:
        output: what it returned.
        of: names the part in the error.
        channels: the expected size of the second axis.
        batch: the expected size of the first axis; an export may keep it open.
        remedy: what to do about another output.

    Raises:
        PluginError: it is something else.
    """
    if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
        found = output.shape[0]
        if output.shape[1] == channels and (is_open(found, batch) or found == batch):
            return output
    raise PluginError(
        f"{of} must return one floating-point tensor of shape ({batch}, {channels}, h, w); found {describe(output)}. {remedy}"
    )


def describe(output: object) -> str:
    """Return what an output is: a tensor's shape and dtype, or a container's type and length."""
    if isinstance(output, Tensor):
        dtype = "" if output.is_floating_point() else f" of {output.dtype}"
        return f"a tensor of shape {tuple(output.shape)}{dtype}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of length {len(output)}"
    return f"a value of type {type(output).__name__}"
