"""smp's decoders, other than U-Net, that upsample by two in each step up to the image's size: U-Net++, MA-Net and LinkNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import Tensor, nn

import zoo
from zoo_smp.ladder import Ladder, SmpHead, check_widths, finish
from zoo_unet.expanding import step_widths

__all__ = ["Linknet", "MAnet", "UnetPlusPlus"]

PREFINAL = 32
"""The number of output channels of LinkNet."""
NARROWEST = 4
"""The fewest channels that a step of LinkNet supports, since the step works on a quarter of them."""


class Stepwise(SmpHead):
    """The common part of U-Net++, MA-Net and LinkNet, which read a map of each level, and return a map of the image's size."""

    head_kernel_size = 3
    _ladder: Ladder

    def _finish(self, ladder: Ladder, out_channels: int, norm: str) -> None:
        self._ladder = ladder
        self.out_channels, self.out_stride = out_channels, 1
        finish(cast("nn.Module", self), norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the image's resolution: (N, out_channels, H, W)."""
        return super().forward(self._ladder.fill(features))  # type: ignore[misc, no-any-return]


class DecoderBlock(nn.Module):
    """An upsampling step of smp's U-Net++.

    It also accepts maps without channels, which stand for levels missing from the pyramid.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1, self.attention1 = block.conv1, block.attention1
        self.conv2, self.attention2 = block.conv2, block.attention2
        self.interpolation_mode = block.interpolation_mode

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Run the step: x (N, C, h, w), skip (N, skip channels, 2h, 2w) or None -> (N, out channels, 2h, 2w)."""
        if self.conv1 is None:
            return x.new_empty(x.shape[0], 0, 2 * x.shape[2], 2 * x.shape[3])
        parts = [F.interpolate(x, scale_factor=2.0, mode=self.interpolation_mode)] if x.shape[1] else []
        if skip is not None:
            joined = torch.cat([*parts, skip], dim=1)
            parts = [self.attention1(joined)]
        return self.attention2(self.conv2(self.conv1(parts[0])))  # type: ignore[no-any-return]


class UnetPlusPlus(Stepwise, UnetPlusPlusDecoder):  # type: ignore[misc]
    """smp's U-Net++ decoder (Zhou et al. 2018, arXiv:1807.10165; segmentation_models_pytorch).

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H, W).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of stride 2 and coarser.
        channels: the number of output channels of each upsampling step, coarse to fine. The default for five steps is 256,
            128, 64, 32, 16. With fewer steps, the first of these numbers are left out.
        norm: "batch" or "group".
        attention: None, or "scse" (Roy et al. 2018, arXiv:1803.02579).
        interpolation: how a map is upsampled: "nearest", "bilinear" or "bicubic".
        center: whether two more convolutions are applied to the coarsest map (smp does so for VGG).
    """

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
        ladder = Ladder(pyramid)
        widths = step_widths(channels, ladder.coarsest)
        super().__init__(
            encoder_channels=ladder.channels,
            decoder_channels=widths,
            n_blocks=ladder.coarsest,
            attention_type=attention,
            interpolation_mode=interpolation,
            center=center,
        )
        self.blocks: nn.ModuleDict = nn.ModuleDict({name: DecoderBlock(block) for name, block in self.blocks.items()})
        # A block's first attention applies to its concatenated map. The last step has no skip, so it concatenates nothing.
        self.blocks[f"x_0_{self.depth}"].attention1 = nn.Identity()
        self._finish(ladder, widths[-1], norm)

    def match_weights(self, state: Mapping[str, Tensor]) -> zoo.plugin.MatchedWeights:
        """Match a file's tensors to this decoder's. Tensors of attention layers that smp creates but never uses are ignored."""
        return zoo.plugin.match_weights(state, self.state_dict(), left_out=lambda name: ".attention1." in name, named="decoder")


class MAnet(Stepwise, MAnetDecoder):  # type: ignore[misc]
    """smp's MA-Net decoder (Fan et al. 2020, MA-Net, IEEE Access 8; segmentation_models_pytorch).

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H, W).

    The attention relates all pixels of the coarsest map to one another, so its memory grows with the square of the number of
    these pixels.

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of stride 2 and coarser.
        channels: the number of output channels of each upsampling step, coarse to fine. The default for five steps is 256,
            128, 64, 32, 16. With fewer steps, the first of these numbers are left out.
        norm: "batch" or "group".
        pab_channels: the number of channels of the queries and keys in the position-wise attention.
        interpolation: how a map is upsampled: "nearest", "bilinear" or "bicubic".
    """

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: Sequence[int] | None = None,
        norm: str = "batch",
        pab_channels: int = 64,
        interpolation: str = "nearest",
    ) -> None:
        check_widths(pab_channels=pab_channels)
        ladder = Ladder(pyramid)
        widths = step_widths(channels, ladder.coarsest)
        super().__init__(
            encoder_channels=ladder.channels,
            decoder_channels=widths,
            n_blocks=ladder.coarsest,
            pab_channels=pab_channels,
            interpolation_mode=interpolation,
        )
        self._finish(ladder, widths[-1], norm)


class Linknet(Stepwise, LinknetDecoder):  # type: ignore[misc]
    """smp's LinkNet decoder (Chaurasia and Culurciello 2017, arXiv:1707.03718; segmentation_models_pytorch).

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, 32, H, W).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of stride 2 and coarser.
        norm: "batch" or "group".
    """

    head_kernel_size = 1

    def __init__(self, pyramid: zoo.plugin.Pyramid, *, norm: str = "batch") -> None:
        wide = tuple(replace(entry, channels=max(entry.channels, NARROWEST)) for entry in pyramid)
        ladder = Ladder(wide)
        super().__init__(encoder_channels=ladder.channels, prefinal_channels=PREFINAL, n_blocks=ladder.coarsest)
        self.widened = nn.ModuleList(
            nn.Identity() if given == used else nn.Conv2d(given.channels, used.channels, kernel_size=1)
            for given, used in zip(pyramid, wide, strict=True)
        )
        self._finish(ladder, PREFINAL, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the image's resolution: (N, 32, H, W)."""
        return super().forward([widen(x) for widen, x in zip(self.widened, features, strict=True)])
