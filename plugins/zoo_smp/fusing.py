"""smp's decoders that bring all levels to one resolution and fuse them: FPN, PAN, SegFormer and DPT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base.initialization import initialize_head
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import Tensor, nn

import zoo
from zoo_smp.ladder import IMAGE, SmpHead, check_widths, finish, on_exact_ladder

__all__ = ["DPT", "FPN", "PAN", "Segformer"]

FULL = 4
"""The number of levels of smp's FPN."""


class FPN(SmpHead, FPNDecoder):  # type: ignore[misc]
    """smp's FPN decoder (Kirillov et al. 2019, Panoptic FPN, arXiv:1901.02446; segmentation_models_pytorch).

    Shapes: two to four maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H/stride_0, W/stride_0).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse.
        channels: the number of channels of each map in the decoder's own pyramid.
        segmentation_channels: the number of channels of each level's branch, a multiple of 32.
        merge: how the branches are joined, "add" or "cat".
        dropout: the share of the channels that are dropped at the end during training.
        interpolation: how a map is upsampled for the next finer level: "nearest", "bilinear" or "bicubic".
    """

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: int = 256,
        segmentation_channels: int = 128,
        merge: str = "add",
        dropout: float = 0.2,
        interpolation: str = "nearest",
    ) -> None:
        check_widths(channels=channels, segmentation_channels=segmentation_channels)
        if segmentation_channels % 32:
            raise zoo.errors.OptionError(
                f"segmentation_channels must be a multiple of 32, for its group norms; found {segmentation_channels}."
            )
        missing = FULL - len(pyramid)
        super().__init__(
            encoder_channels=[1] * missing + [entry.channels for entry in pyramid],
            encoder_depth=3,
            pyramid_channels=channels,
            segmentation_channels=segmentation_channels,
            dropout=dropout,
            merge_policy=merge,
            interpolation_mode=interpolation,
        )
        self._laterals = ("p4", "p3", "p2")[: FULL - 1 - missing]
        for unused in ("p4", "p3", "p2")[FULL - 1 - missing :]:
            delattr(self, unused)
        # The blocks are in the order coarse to fine. Each doubles the resolution one time fewer than the block before it.
        self.seg_blocks: nn.ModuleList = self.seg_blocks[missing:]
        if merge == "cat":
            self.out_channels = segmentation_channels * len(pyramid)
        self._steps = tuple(range(len(pyramid)))  # smp doubles the resolution from map to map, whatever the strides are
        self.out_stride = pyramid[-1].stride / 2 ** self._steps[-1]
        finish(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the finest map's resolution: (N, out_channels, H/stride_0, W/stride_0)."""
        *skips, coarse = on_exact_ladder(features, self._steps, self._steps[-1])
        x = self.p5(coarse)
        branches = [self.seg_blocks[0](x)]
        for lateral, skip, branch in zip(self._laterals, reversed(skips), self.seg_blocks[1:], strict=True):
            x = getattr(self, lateral)(x, skip)
            branches.append(branch(x))
        return self.dropout(self.merge(branches))  # type: ignore[no-any-return]


class PAN(SmpHead, PANDecoder):  # type: ignore[misc]
    """smp's PAN decoder (Li et al. 2018, Pyramid Attention Network, arXiv:1805.10180; segmentation_models_pytorch).

    Shapes: two to four maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, channels, H/stride_0, W/stride_0).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse. Several maps may have the same stride, as in a dilated encoder.
        channels: the number of channels of every map in the decoder and of the output.
        output_stride: the stride of the coarsest map that the decoder reads, 16 or 32. For 16, an encoder that supports dilated
            convolutions is built with them.
        interpolation: how a map is upsampled: "nearest", "bilinear" or "bicubic".
        norm: "batch" or "group".
    """

    head_kernel_size = 3
    SMALLEST = 8
    """The smallest height or width, in pixels, that the attention can halve three times."""

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: int = 32,
        output_stride: int = 16,
        interpolation: str = "bilinear",
        norm: str = "batch",
    ) -> None:
        check_widths(channels=channels)
        super().__init__(
            encoder_channels=[IMAGE, 0, *(entry.channels for entry in pyramid)],
            encoder_depth=len(pyramid) + 1,
            decoder_channels=channels,
            interpolation_mode=interpolation,
        )
        # the attention map has only one channel, so its group norm needs more than one pixel after the halvings
        self._least = 2 * self.SMALLEST if norm == "group" else self.SMALLEST
        self.out_channels, self.out_stride = channels, pyramid[0].stride
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the output map, of the same size as the finest input map: (N, channels, H/stride_0, W/stride_0)."""
        coarse = features[-1]
        height, width = coarse.shape[-2:]
        missing = (torch.sym_max(0, self._least - length) for length in (height, width))
        out = self.fpa(zoo.plugin.pad_map(coarse, *missing))[..., :height, :width]
        for index in range(len(features) - 2, -1, -1):
            out = getattr(self, f"gau{index + 1}")(features[index], out)
        return out  # type: ignore[no-any-return]


class Segformer(SmpHead, SegformerDecoder):  # type: ignore[misc]
    """smp's SegFormer decoder (Xie et al. 2021, arXiv:2105.15203; segmentation_models_pytorch).

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, channels, H/4, W/4).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse, of stride 2 and coarser.
        channels: the number of channels to which every map is projected, and of the output.
        norm: "batch" or "group".
    """

    LEVEL = 2
    """The level (the base-2 logarithm of the stride) at which the maps are joined: that of stride 4."""

    def __init__(self, pyramid: zoo.plugin.Pyramid, *, channels: int = 256, norm: str = "batch") -> None:
        check_widths(channels=channels)
        super().__init__(
            encoder_channels=[IMAGE, *(entry.channels for entry in pyramid)], encoder_depth=5, segmentation_channels=channels
        )
        self._steps = pyramid[-1].level - self.LEVEL
        self.out_channels, self.out_stride = channels, pyramid[-1].stride / 2**self._steps
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at stride 4: (N, channels, H/4, W/4)."""
        coarse = features[-1]
        height, width = (side * 2 ** (self._steps + self.LEVEL) for side in coarse.shape[-2:])
        image = coarse.new_empty(coarse.shape[0], 0, height, width)  # smp uses only the image's size
        return super().forward([image, *features])  # type: ignore[no-any-return]


class DPT(DPTDecoder):  # type: ignore[misc]
    """smp's DPT decoder (Ranftl et al. 2021, arXiv:2103.13413; segmentation_models_pytorch).

    The decoder receives maps only, and no class token.

    Shapes: maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, channels, H/2, W/2).

    Args:
        pyramid: the `FeatureMap` of each map, fine to coarse. Several maps may have the same stride, as in a vision
            transformer.
        channels: the number of channels of the maps when they are fused, and of the output.
        intermediate_channels: the number of channels of each map before the maps are fused.
        readout: "cat" for an additional linear layer on each map, or "ignore" for no such layer.
        norm: "batch" or "group".
    """

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: int = 256,
        intermediate_channels: Sequence[int] = (256, 512, 1024, 1024),
        readout: str = "ignore",
        norm: str = "batch",
    ) -> None:
        check_widths(channels=channels)
        if len(intermediate_channels) != len(pyramid):
            raise zoo.errors.OptionError(
                f"intermediate_channels has {len(intermediate_channels)} numbers for {len(pyramid)} maps. "
                "Pass one number of channels for each map."
            )
        levels = tuple(entry.level for entry in pyramid)
        super().__init__(
            encoder_out_channels=[entry.channels for entry in pyramid],
            encoder_output_strides=[2**level for level in levels],
            encoder_has_prefix_tokens=False,
            readout=readout,
            intermediate_channels=intermediate_channels,
            fusion_channels=channels,
        )
        self._levels = levels
        self.out_channels, self.out_stride = channels, pyramid[-1].stride / 2 ** (pyramid[-1].level - 1)
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at stride 2: (N, channels, H/2, W/2)."""
        coarsest = 1 + len(features)  # smp resizes the maps to the levels 2, 3, ...
        exact = on_exact_ladder(features, self._levels, max(self._levels[-1], coarsest))
        return super().forward(exact, [None] * len(exact))  # type: ignore[no-any-return]

    def make_head(self, classes: int) -> nn.Module:
        """Return smp's head, which doubles the resolution: (N, channels, H/2, W/2) -> (N, classes, H, W)."""
        head: nn.Module = DPTSegmentationHead(self.out_channels, classes)
        initialize_head(head)
        return head
