"""Create timm's networks, with zoo's errors for what timm refuses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

import zoo

__all__ = ["create_model", "create_on_meta"]


def create_model(name: str, keywords: Mapping[str, Any], **weights: Any) -> nn.Module:
    """Return what `timm.create_model` returns for these keyword arguments.

    Args:
        name: timm's name of the architecture, which may end in "." and the tag of its weights.
        keywords: keyword arguments that may come from the user.
        weights: further keyword arguments, which concern the weights.

    Raises:
        zoo.errors.OptionError: the architecture does not accept one of the keyword arguments.
    """
    try:
        with warnings.catch_warnings():
            # Earlier versions of timm also create the classifier if it has no classes.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors is a no-op")
            network: nn.Module = timm.create_model(name, **weights, **keywords)
    except TypeError as cause:
        if "unexpected keyword" not in str(cause):
            raise
        raise zoo.errors.OptionError(f"timm:{name} does not accept one of the options: {cause}.") from cause
    return network


def create_on_meta(name: str, keywords: Mapping[str, Any], **weights: Any) -> Any:
    """Return a network on the meta device. The arguments are those of `create_model`.

    Earlier versions of timm cannot create some architectures there, because they read values of tensors. Such a network is
    created on the CPU, and then moved to the meta device. The state of torch's random generator stays the same.

    Raises:
        zoo.errors.OptionError: the architecture does not accept one of the keyword arguments.
    """
    try:
        with torch.device("meta"):
            return create_model(name, keywords, **weights)
    except zoo.errors.OptionError:
        raise
    except Exception:  # noqa: BLE001 - timm's families raise many kinds of exceptions; a second one is the reason that counts
        pass
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return create_model(name, keywords, **weights).to("meta")
