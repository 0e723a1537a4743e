"""Find the parameters that no chosen map depends on, and turn them into buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import zoo

__all__ = ["make_buffers", "unused_parameters"]


def unused_parameters(network: Any, image: Tensor, indices: Sequence[int]) -> list[str]:
    """Return the names of the parameters that the maps at these indices do not depend on."""
    with torch.enable_grad():
        maps = network.forward_intermediates(image, indices=list(indices), intermediates_only=True)
    return zoo.plugin.unused_parameters(network, maps)


def make_buffers(network: nn.Module, names: Sequence[str]) -> None:
    """Turn parameters into buffers with the same names, so that no optimizer trains them.

    The network's state dict and output stay unchanged.
    """
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = network.get_submodule(owner_name)
        tensor = owner._parameters.pop(leaf)
        if tensor is not None:
            owner.register_buffer(leaf, tensor.detach())
