"""The building blocks of a U-Net step: upsampling, the attention gate, and the two convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo

__all__ = ["AttentionGate", "BilinearUp", "DoubleConv", "TransposedUp", "initialize", "make_norm"]

NORMS = ("batch", "group", "none")


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return a normalization layer for (N, channels, H, W).

    A group norm has groups of 8 channels, or a single group if the number of channels is not a multiple of 8.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
    if norm == "none":
        return nn.Identity()
    raise zoo.errors.OptionError(f"norm must be one of {', '.join(map(repr, NORMS))}; found {norm!r}.")


def initialize(decoder: nn.Module) -> None:
    """Initialize the weights of a decoder for training.

    Convolutions preserve the variance of their input through a ReLU (He et al. 2015, arXiv:1502.01852). Transposed
    convolutions begin as nearest-neighbor upsampling of a random projection that preserves the variance: all their taps are
    equal (ICNR, Aitken et al. 2017, arXiv:1707.02937). With PyTorch's default initialization, the coarse maps would have little
    effect on the output at first, so it would take the model longer to learn to use them.
    """
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            taps = layer.weight.new_empty(layer.weight.shape[:2])
            nn.init.normal_(taps, std=layer.in_channels**-0.5)
            with torch.no_grad():
                layer.weight.copy_(taps[:, :, None, None].expand_as(layer.weight))
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class DoubleConv(nn.Sequential):
    """Two blocks of 3x3 convolution, norm and ReLU: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str) -> None:
        bias = norm == "none"
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=bias),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )


class TransposedUp(nn.Module):
    """A 2x2 transposed convolution of stride 2. If the result does not have the skip's size, it is resized.

    Shapes: (N, in_channels, h, w) -> (N, out_channels, H, W), where (H, W) is `size`, or (2h, 2w) if `size` is None.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample to `size`, or to twice the size of `x` if `size` is None."""
        x = self.conv(x)
        return x if size is None else zoo.plugin.resize_map(x, size)


class BilinearUp(nn.Module):
    """Bilinear upsampling that does not change the channels.

    Shapes: (N, C, h, w) -> (N, C, H, W), where (H, W) is `size`, or (2h, 2w) if `size` is None.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = in_channels

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample to `size`, or to twice the size of `x` if `size` is None."""
        size = size or (2 * x.shape[-2], 2 * x.shape[-1])
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class AttentionGate(nn.Module):
    """The additive attention gate of Oktay et al. 2018 (arXiv:1804.03999), eq. 1 and 2, on the gating signal's grid.

    A 2x2 convolution of stride 2 projects the skip to the gating signal's grid (as in the authors' repository,
    ozan-oktay/Attention-Gated-Networks), and a 1x1 convolution projects the gating signal to the same number of channels. The
    sum of the two projections is rectified and projected to one coefficient between 0 and 1 for each pixel. The coefficients
    are resampled to the skip's grid, and the skip is multiplied by them.

    Shapes: skip (N, skip_channels, H, W), gating (N, gating_channels, about H/2, about W/2) -> (N, skip_channels, H, W).
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        width = max(1, skip_channels // 2)
        self.theta = nn.Conv2d(skip_channels, width, kernel_size=2, stride=2, bias=False)
        self.phi = nn.Conv2d(gating_channels, width, kernel_size=1)
        self.psi = nn.Conv2d(width, 1, kernel_size=1)

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the attention coefficients on the skip's grid: (N, 1, H, W), each between 0 and 1."""
        keys = self.theta(
            zoo.plugin.pad_map(skip, skip.shape[-2] % 2, skip.shape[-1] % 2)
        )  # so that the last row or column of an odd size is included
        signal = zoo.plugin.resize_map(self.phi(gating), keys.shape[-2:])
        scores = self.psi(F.relu(keys + signal)).sigmoid()
        return F.interpolate(scores, size=skip.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the skip with each pixel multiplied by its coefficient."""
        return skip * self.coefficients(skip, gating)
