"""A 3x3 convolution of an upsampled map (nearest, x2) and a skip, computed at the low resolution."""

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
"""The low-resolution form of `UpsampledConv2d` computes the map's part of the convolution before the upsampling. On the CPU, it
is faster for batches of at least this many pixels before the upsampling.

The low-resolution form saves 20 multiplications for each pixel and pair of channels. It needs a kernel of 16 taps instead of 9,
which must be computed and read. The saving and this cost both grow with the product of the numbers of channels, so only the
number of pixels decides which form is faster. The limit was measured with `benchmarks/lowres.py`.
"""

MIN_PIXELS_ON_ACCELERATORS = 65536
MIN_PIXELS_ON_ACCELERATORS_ONCE_MADE = 2048
"""The same limit for accelerators, which small maps do not keep busy.

The second number applies if the 4x4 kernel exists already.

Measured on an NVIDIA H200 (`benchmarks/results/lowres-gpu.md`).
"""


def low_resolution_kernel(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest x2 upsampling followed by this 3x3 convolution.

    For output row 2i, tap 0 reads input row i - 1, and taps 1 and 2 both read input row i. For output row 2i + 1, taps 0 and
    1 both read input row i, and tap 2 reads input row i + 1. Columns work in the same way (the phases of Shi et al. 2016,
    arXiv:1609.07009, for nearest upsampling). Each of the 4x4 taps is therefore a sum of up to four of the 3x3 taps: a
    sliding 2x2 sum.

    Shapes: (out_channels, in_channels, 3, 3) -> (in_channels, out_channels, 4, 4), channels-last in memory, for
    `conv_transpose2d(..., stride=2, padding=1)`. The function is differentiable.
    """
    swapped = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    # Average pooling is fast in both memory formats, and adds no constant to an exported graph.
    return 4 * F.avg_pool2d(swapped.flip(2, 3), 2, stride=1, padding=1)


def pays_at_low_resolution(
    batch: int, height: int, width: int, *, device: torch.device | None = None, is_made: bool = False
) -> bool:
    """Return whether the low-resolution form is faster than the plain form for maps of this size.

    Sizes that are variable in an export count as large, so that the graph is not fixed to one size.

    Args:
        batch: the number of images.
        height: the height of the map before upsampling.
        width: the width of the map before upsampling.
        device: the device of the computation; by default the CPU.
        is_made: whether the kernel exists already. Otherwise it is computed from the 3x3 kernel in each call.
    """
    if is_open(batch, height, width) or _is_strict_export():
        return True
    least = MIN_PIXELS
    if device is not None and device.type not in ("cpu", "meta"):
        least = MIN_PIXELS_ON_ACCELERATORS_ONCE_MADE if is_made else MIN_PIXELS_ON_ACCELERATORS
    return batch * height * width >= least


class UpsampledConv2d(nn.Conv2d):
    """Computes `nn.Conv2d(up_channels + skip_channels, out_channels, 3, padding=1)` of an upsampled map and a skip.

    The result is `conv(cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1))`, computed without upsampling or
    concatenating. There is no non-linear operation in between, so it equals
    `conv_transpose2d(x, K) + conv2d(skip, W)`, where K is the 4x4 kernel of `low_resolution_kernel`. This takes 16
    multiplications for each pixel and pair of channels instead of 36. The names and shapes of the parameters and their
    gradients are those of the plain convolution, so checkpoints are interchangeable. As for any convolution, the result is
    channels-last in memory if `x` or the weight is.

    The plain form, which upsamples and concatenates, is computed in two cases. If the skip is not exactly twice as large as
    `x`, `x` is resized to the skip's size (nearest). If the map has few pixels, the plain form is faster (see
    `pays_at_low_resolution`).

    Shapes: x (N, up_channels, h, w), skip (N, skip_channels, H, W) or None if there are no skip channels ->
    (N, out_channels, H, W), or (N, out_channels, 2h, 2w) without a skip.

    Args:
        up_channels: the number of channels of the map that is upsampled.
        skip_channels: the number of channels of the skip; 0 for none.
        out_channels: the number of channels of the result.
        bias: whether a bias is added.
        form: "auto" chooses a form by the size of the map. "plain" and "low" select a form, but the plain form is always used
            if the skip is not exactly twice as large as `x`.

    Raises:
        OptionError: the form is unknown.
    """

    def __init__(
        self, up_channels: int, skip_channels: int, out_channels: int, *, bias: bool = True, form: Form = "auto"
    ) -> None:
        if form not in ("auto", "plain", "low"):
            raise OptionError(f"form must be one of 'auto', 'plain', 'low'; found {form!r}.")
        super().__init__(up_channels + skip_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        self.up_channels = up_channels
        self.skip_channels = skip_channels
        self.form: Form = form

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Upsample `x`, concatenate it with `skip` (if there is one), and return the convolution of the result."""
        if self._is_low(x, skip):
            return self._low(x, skip)
        if skip is None:
            return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return super().forward(torch.cat([x, skip], dim=1))

    def extra_repr(self) -> str:
        """Return the numbers of channels of the map, the skip and the result, and the form."""
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
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()  # a map of 1x1 pixels is both


def _is_strict_export() -> bool:
    """Return whether a strict export is analyzing this code. Variable sizes then look like plain numbers."""
    return torch.compiler.is_dynamo_compiling() and torch.compiler.is_exporting()


def _is_double(x: Tensor, skip: Tensor) -> bool:
    return is_same([2 * length for length in x.shape[-2:]], skip.shape[-2:])
