"""smp's decoders that pool the coarsest map to small grids: PSPNet and UPerNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

import zoo
from zoo_smp.ladder import IMAGE, SmpHead, check_widths, finish

__all__ = ["AdaptiveAvgPool", "PSPNet", "UPerNet"]


BRANCHES = 4
"""The number of branches of smp's PSPNet. They pool a map to grids of 1, 2, 3 and 6 cells along each axis."""


class AdaptiveAvgPool(nn.Module):
    """`nn.AdaptiveAvgPool2d(size)` that can be exported for images of every size: (N, C, H, W) -> (N, C, size, size).

    An exporter fixes the pooling windows of `nn.AdaptiveAvgPool2d` to the size of the example image. In an exported graph, this
    module is therefore two matrix products whose weights are computed from H and W.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Average each channel in each cell of a grid of size x size cells: (N, C, H, W) -> (N, C, size, size)."""
        if not (torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()):
            return F.adaptive_avg_pool2d(x, self.size)
        return self._shares(x.shape[-2], x) @ x @ self._shares(x.shape[-1], x).transpose(0, 1)

    def _shares(self, length: int, like: Tensor) -> Tensor:
        """Return the weight of each pixel along an axis in the average of each window: (size, length).

        The windows are those of `nn.AdaptiveAvgPool2d`, which may overlap.
        """
        stretch = torch.arange(self.size, device=like.device).unsqueeze(1)
        place = torch.arange(length, device=like.device).unsqueeze(0)
        begin = (stretch * length).div(self.size, rounding_mode="floor")
        end = ((stretch + 1) * length + self.size - 1).div(self.size, rounding_mode="floor")
        inside = ((place >= begin) & (place < end)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


class PooledBranch(nn.Module):
    """A branch of smp's PSPNet: pooling, a 1x1 convolution, and upsampling: (N, C, H, W) -> (N, C / 4, H, W)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.pool = nn.Sequential(AdaptiveAvgPool(block.pool_size), block.pool[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's map at the size of its input."""
        return F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=True)


class PSPNet(SmpHead, PSPDecoder):  # type: ignore[misc]
    """smp's PSPNet decoder (Zhao et al. 2017, arXiv:1612.01105; segmentation_models_pytorch).

    Shapes: one map (N, C, H/stride, W/stride) in a list -> (N, out_channels, H/stride, W/stride).

    Args:
        pyramid: the `FeatureMap` of the only map, which has stride 8.
        channels: the number of output channels.
        norm: "batch" or "group".
        dropout: the share of the channels that are dropped at the end during training.
    """

    head_kernel_size = 3

    def __init__(self, pyramid: zoo.plugin.Pyramid, *, channels: int = 512, norm: str = "batch", dropout: float = 0.2) -> None:
        check_widths(channels=channels)
        given = pyramid[-1].channels
        width = -(-given // BRANCHES) * BRANCHES  # smp divides the channels evenly among the branches
        super().__init__(encoder_channels=[width], out_channels=channels, dropout=dropout)
        self.widened = nn.Identity() if width == given else nn.Conv2d(given, width, kernel_size=1)
        self.psp.blocks = nn.ModuleList(PooledBranch(block) for block in self.psp.blocks)
        self.out_channels, self.out_stride = channels, pyramid[-1].stride
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return a map of the same size as the input map: (N, out_channels, H/stride, W/stride)."""
        return super().forward([self.widened(features[-1])])  # type: ignore[no-any-return]


class UPerNet(SmpHead, UPerNetDecoder):  # type: ignore[misc]
    """smp's UPerNet decoder (Xiao et al. 2018, arXiv:1807.10221; segmentation_models_pytorch).

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, channels, H/stride_0, W/stride_0).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of strides 4 to 32.
        channels: the number of channels of every map in the decoder and of the output.
        norm: "batch" or "group".
    """

    def __init__(self, pyramid: zoo.plugin.Pyramid, *, channels: int = 256, norm: str = "batch") -> None:
        check_widths(channels=channels)
        super().__init__(encoder_channels=[IMAGE, 0, *(entry.channels for entry in pyramid)], decoder_channels=channels)
        for block in self.psp.blocks:
            block[0] = AdaptiveAvgPool(block[0].output_size)
        self.out_channels, self.out_stride = channels, pyramid[0].stride
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the finest map's size: (N, channels, H/stride_0, W/stride_0)."""
        skipped = features[0]  # stands for both the image and the map at stride 2: smp expects but does not read them
        return super().forward([skipped, skipped, *features])  # type: ignore[no-any-return]
