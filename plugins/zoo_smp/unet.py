"""A reimplementation of smp's U-Net decoder, with the same state-dict keys and the same output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.base.modules import Attention
from torch import Tensor, nn

import zoo
from zoo_smp.ladder import SmpHead
from zoo_unet.blocks import make_norm
from zoo_unet.expanding import ExpandingPath

__all__ = ["Unet"]


class ConvNormReLU(nn.Sequential):
    """A 3x3 convolution, norm and ReLU: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=norm == "none"),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )


class UpsampledConvNormReLU(nn.Sequential):
    """`ConvNormReLU` on the concatenation of a skip and a map that is upsampled to the skip's size (nearest).

    If this is faster, the map's part of the convolution is computed before the upsampling, at the map's lower resolution.

    Shapes: x (N, up_channels, h, w), skip (N, skip_channels, H, W) or None -> (N, out_channels, H, W).
    """

    def __init__(self, up_channels: int, skip_channels: int, out_channels: int, *, norm: str) -> None:
        super().__init__(
            zoo.plugin.UpsampledConv2d(up_channels, skip_channels, out_channels, bias=norm == "none"),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:  # type: ignore[override]
        """Return the output map. It has the skip's size, or twice the size of `x` if the skip is None."""
        conv, norm, relu = self
        return relu(norm(conv(x, skip)))  # type: ignore[no-any-return]


class DecoderBlock(nn.Module):
    """An upsampling step: x (N, in_channels, h, w), skip (N, skip_channels, H, W) or None -> (N, out_channels, H, W)."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, *, norm: str, attention: str | None, interpolation: str
    ) -> None:
        super().__init__()
        joined = in_channels + skip_channels
        self._attended = attention is not None and skip_channels > 0
        self.conv1: nn.Module
        if interpolation == "nearest" and not self._attended:  # only linear operations between upsampling and convolution
            self.conv1 = UpsampledConvNormReLU(in_channels, skip_channels, out_channels, norm=norm)
        else:
            self.conv1 = ConvNormReLU(joined, out_channels, norm=norm)
        # smp applies its first attention only to a concatenation
        self.attention1 = Attention(attention if self._attended else None, in_channels=joined)
        self.conv2 = ConvNormReLU(out_channels, out_channels, norm=norm)
        self.attention2 = Attention(attention, in_channels=out_channels)
        self.interpolation_mode = interpolation

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Return the map at the skip's size, or at twice the size of `x` if the skip is None."""
        if isinstance(self.conv1, UpsampledConvNormReLU):
            return self.attention2(self.conv2(self.conv1(x, skip)))  # type: ignore[no-any-return]
        if skip is None:
            x = F.interpolate(x, scale_factor=2.0, mode=self.interpolation_mode)
        else:
            x = F.interpolate(x, size=skip.shape[-2:], mode=self.interpolation_mode)
            x = self.attention1(torch.cat([x, skip], dim=1))
        return self.attention2(self.conv2(self.conv1(x)))  # type: ignore[no-any-return]


class Unet(SmpHead, ExpandingPath):
    """The U-Net decoder of segmentation_models_pytorch (Iakubovskii; after Ronneberger et al. 2015, arXiv:1505.04597).

    With smp's weights, the decoder returns smp's output. Its state dict has smp's keys. There is one upsampling step for each
    factor of two from the coarsest map to the image's resolution. If the pyramid has no map with the stride of a step's output,
    the step has no skip.

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H, W).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of stride 2 and coarser.
        channels: the number of output channels of each upsampling step, coarse to fine. The default for five steps is 256,
            128, 64, 32, 16. With fewer steps, the first of these numbers are left out.
        norm: "batch", "group" or "none".
        attention: None, or "scse" (Roy et al. 2018, arXiv:1803.02579).
        interpolation: how a map is upsampled: "nearest", "bilinear" or "bicubic".
        center: whether two more convolutions are applied to the coarsest map (smp does so for VGG).

    Raises:
        zoo.errors.OptionError: `channels` does not have one valid number for each step, or the norm is unknown.
    """

    head_kernel_size = 3

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: Sequence[int] | None = None,
        norm: str = "batch",
        attention: str | None = None,
        interpolation: str = "nearest",
        center: bool = False,
    ) -> None:
        super().__init__(pyramid, channels)
        width = pyramid[-1].channels
        self.center = (
            nn.Sequential(ConvNormReLU(width, width, norm=norm), ConvNormReLU(width, width, norm=norm))
            if center
            else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            DecoderBlock(*widths, norm=norm, attention=attention, interpolation=interpolation) for widths in self._step_channels
        )
        initialize_decoder(self)

    def _steps_up(self) -> Iterable[nn.Module]:
        return self.blocks

    def _coarsest(self, features: Sequence[Tensor]) -> Tensor:
        return self.center(features[-1])  # type: ignore[no-any-return]

    def match_weights(self, state: Mapping[str, Tensor]) -> zoo.plugin.MatchedWeights:
        """Match a file's tensors to this decoder's. Tensors of attention layers that smp creates but never uses are ignored."""
        return zoo.plugin.match_weights(state, self.state_dict(), left_out=lambda name: ".attention1." in name, named="decoder")
