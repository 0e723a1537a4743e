"""Build the modules that a plan inserts between an encoder's feature map and a decoder's input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.pairing.plan import Adapter

__all__ = ["ChannelNorm", "build_adapters"]


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each pixel of (N, C, H, W), like `LayerNorm` in detectron2's ViTDet."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized map: (N, C, H, W) -> (N, C, H, W)."""
        return F.layer_norm(input.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


def build_adapters(adapters: Sequence[Adapter]) -> nn.Module:
    """Return the module that applies adapters in sequence: (N, in_channels, h, w) -> (N, out_channels, H, W).

    Without adapters, it is the identity.
    """
    modules = [_BUILDERS[adapter.kind](adapter) for adapter in adapters]
    if not modules:
        return nn.Identity()
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _project(adapter: Adapter) -> nn.Module:
    return nn.Conv2d(adapter.in_channels, adapter.out_channels, kernel_size=1)


def _fill(adapter: Adapter) -> nn.Module:
    return nn.Sequential(*_learned_steps(adapter))


def _synthesize(adapter: Adapter) -> nn.Module:
    """Return a level of the simple feature pyramid (Li et al. 2022, arXiv:2203.16527; detectron2's `SimpleFeaturePyramid`)."""
    if adapter.steps > 0:
        scale = _learned_steps(adapter)
    else:  # sides are rounded up, so that a side of one pixel remains one pixel
        scale = [nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True) for _ in range(-adapter.steps)]
    width, out = adapter.widths[-1], adapter.out_channels
    return nn.Sequential(
        *scale,
        nn.Conv2d(width, out, kernel_size=1, bias=False),
        ChannelNorm(out),
        nn.Conv2d(out, out, kernel_size=3, padding=1, bias=False),
        ChannelNorm(out),
    )


def _learned_steps(adapter: Adapter) -> list[nn.Module]:
    """Return the 2x2 transposed convolutions (doubling) or 3x3 convolutions (halving), with norms and GELUs in between."""
    modules: list[nn.Module] = []
    for before, after in pairwise(adapter.widths):
        if modules:
            modules += [ChannelNorm(before), nn.GELU()]
        if adapter.steps > 0:
            modules.append(nn.ConvTranspose2d(before, after, kernel_size=2, stride=2))
        else:
            modules.append(nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1))
    return modules


_BUILDERS = {"project": _project, "fill": _fill, "synthesize": _synthesize}
