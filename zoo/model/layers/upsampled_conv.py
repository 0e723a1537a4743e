"""A 3x3 convolution after nearest x2 upsampling, and after a concatenation with a skip, computed at the low resolution."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import OptionError
from zoo.model.layers.resizing import is_open, is_same

__all__ = ["Form", "UpsampledConv2d", "low_resolution_kernel", "pays_at_low_resolution"]

Form: TypeAlias = Literal["auto", "plain", "low"]

MIN_PIXELS = 512
"""From how many pixels, batch and low-resolution image together, the low-resolution form is the faster one on the CPU.

Both what it saves (20 multiplications a pixel) and what it costs (a kernel of 16 taps is made, and read in place of 9)
grow with the product of the channels, so that the pixels alone decide. `python benchmarks/lowres.py` measures it.
"""

MIN_PIXELS_ON_ACCELERATORS = 65536
MIN_PIXELS_ON_ACCELERATORS_ONCE_MADE = 2048
"""The same on accelerators, which small maps leave idle; the fewer once the kernel need not be made in each call.

Measured on an NVIDIA H200 (`benchmarks/results/lowres-gpu.md`).
"""


def low_resolution_kernel(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest x2 upsampling and this 3x3 convolution.

    An even row of the result sees the pixel above through tap 0 and its own through taps 1 and 2; an odd row its own
    through 0 and 1, and the pixel below through 2 (the phases of Shi et al. 2016, arXiv:1609.07009, for nearest
    upsampling). Each of the 4x4 taps is so a sum of up to four of the 3x3's: a sliding sum of 2x2.

    Shapes: (out_channels, in_channels, 3, 3) -> (in_channels, out_channels, 4, 4), channels-last in memory, for
    `conv_transpose2d(..., stride=2, padding=1)`. Differentiable.
    """
    swapped = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    return 4 * F.avg_pool2d(swapped.flip(2, 3), 2, stride=1, padding=1)  # as fast in both layouts, and makes no constant


def pays_at_low_resolution(
    batch: int, height: int, width: int, *, device: torch.device | None = None, is_made: bool = False
) -> bool:
    """Return whether the low-resolution form is the faster one for maps of this size, before upsampling.

    Sizes that an export keeps open count as large ones, so that no size is frozen into a graph.

    Args:
        batch: images.
        height: of the map, before upsampling.
        width: likewise.
        device: that it is computed on; by default the CPU.
        is_made: whether the kernel is at hand, and need not be made from the 3x3 one in each call.
    """
    if is_open(batch, height, width) or _is_strict_export():
        return True
    least = MIN_PIXELS
    if device is not None and device.type not in ("cpu", "meta"):
        least = MIN_PIXELS_ON_ACCELERATORS_ONCE_MADE if is_made else MIN_PIXELS_ON_ACCELERATORS
    return batch * height * width >= least


class UpsampledConv2d(nn.Conv2d):
    """`nn.Conv2d(up_channels + skip_channels, out_channels, 3, padding=1)` over an upsampled map and a skip.

    It equals `conv(cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1))`, and neither upsamples nor
    concatenates: with nothing non-linear between, both are one linear map, `conv_transpose2d(x, K) + conv2d(skip, W)`
    with the 4x4 kernel `low_resolution_kernel`, 16 multiplications a pixel and pair of channels in place of 36. Its
    parameters are the plain convolution's, by name and shape, and so are the gradients; checkpoints are interchangeable.
    The result is channels-last in memory where `x` or the weight is, as a convolution's is.

    Where the skip is not exactly twice as large, `x` is resized to it (nearest), and where few pixels make it the slower
    one (`pays_at_low_resolution`), the plain form is computed.

    Shapes: x (N, up_channels, h, w), skip (N, skip_channels, H, W) or None where there are no skip channels ->
    (N, out_channels, H, W), without a skip (N, out_channels, 2h, 2w).

    Args:
        up_channels: of the map that is upsampled.
        skip_channels: of the map that it is concatenated with; 0 for none.
        out_channels: of the result.
        bias: whether a bias is added.
        form: "auto" chooses by size, "plain" and "low" fix it ("low" falls back where it would not be exact).

    Raises:
        OptionError: another form.
    """

    def __init__(
        self, up_channels: int, skip_channels: int, out_channels: int, *, bias: bool = True, form: Form = "auto"
    ) -> None:
        if form not in ("auto", "plain", "low"):
            raise OptionError(f"form is one of 'auto', 'plain', 'low'; found {form!r}.")
        super().__init__(up_channels + skip_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        self.up_channels = up_channels
        self.skip_channels = skip_channels
        self.form: Form = form

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return the convolution of the upsampled map and the skip."""
        if self._is_low(x, skip):
            return self._low(x, skip)
        if skip is None:
            return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return super().forward(torch.cat([x, skip], dim=1))

    def extra_repr(self) -> str:
        """Return the channels by their origin, and the form."""
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.up_channels}, {self.skip_channels}, {self.out_channels}{bias}, form={self.form!r}"

    def _is_low(self, x: Tensor, skip: Tensor | None) -> bool:
        if self.form == "plain" or (skip is not None and not _is_double(x, skip)):
            return False
        batch, _, height, width = x.shape
        return self.form == "low" or pays_at_low_resolution(batch, height, width, device=x.device)

    def _low(self, x: Tensor, skip: Tensor | None) -> Tensor:
        kernel = low_resolution_kernel(self.weight[:, : self.up_channels])
        if not (_is_channels_last(x) or _is_channels_last(self.weight)):
            kernel = kernel.contiguous()
        y = F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        return y if skip is None else y.add_(F.conv2d(skip, self.weight[:, self.up_channels :], padding=1))


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()  # of 1x1 pixels it is both


def _is_strict_export() -> bool:
    """Whether the code is read rather than run: open sizes then look like plain numbers."""
    return torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting()


def _is_double(x: Tensor, skip: Tensor) -> bool:
    return is_same([2 * length for length in x.shape[-2:]], skip.shape[-2:])
