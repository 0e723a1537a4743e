"""The modules that a plan may put between an encoder's feature map and a decoder's input."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from zoo.negotiation import Adapter

__all__ = ["build_adapters"]


def build_adapters(adapters: Sequence[Adapter]) -> nn.Module:
    """Return the module for one route: (N, in_channels, h, w) -> (N, out_channels, h, w); the identity for no adapter."""
    modules = [_BUILDERS[adapter.kind](adapter) for adapter in adapters]
    if not modules:
        return nn.Identity()
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _project(adapter: Adapter) -> nn.Module:
    return nn.Conv2d(adapter.in_channels, adapter.out_channels, kernel_size=1)


_BUILDERS = {"project": _project}
