"""Convert zoo's pyramids to the inputs that smp's decoders expect, and add smp's head and initial weights."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn

import zoo
from zoo_smp.listing import are_counts
from zoo_unet.blocks import make_norm

__all__ = ["IMAGE", "Ladder", "SmpHead", "check_widths", "finish", "on_exact_ladder"]

IMAGE = 3
"""The number of image channels that smp's decoders expect. None of them reads the image."""


class Ladder:
    """Converts a pyramid to the form that smp's encoders return.

    This form is a list with one map for each level, from level 0 (the image) to the coarsest level. An empty
    map, which has a size but no channels, stands for the image and for each level that the pyramid does not have.

    Attributes:
        coarsest: the level of the last map. Its stride is 2**coarsest, so its size doubled `coarsest` times is the image's
            size.
        channels: the number of channels of each level, as smp's decoders expect it: 3 for the image, and 0 for a missing level.
    """

    def __init__(self, pyramid: zoo.plugin.Pyramid) -> None:
        self._levels = tuple(entry.level for entry in pyramid)
        self.coarsest = self._levels[-1]
        self.channels = [IMAGE] + [0] * self.coarsest
        for entry in pyramid:
            self.channels[entry.level] = entry.channels

    def fill(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return one map (N, C, h, w) for each level, the image's level first.

        Each map is exactly twice as high and wide as the next. C is 0 for the image and for levels that the pyramid lacks.
        """
        coarse = features[-1]
        given = dict(zip(self._levels, on_exact_ladder(features, self._levels, self.coarsest), strict=True))
        height, width = coarse.shape[-2:]

        def empty(level: int) -> Tensor:
            steps = self.coarsest - level
            return coarse.new_empty(coarse.shape[0], 0, height * 2**steps, width * 2**steps)

        return [given[level] if level in given else empty(level) for level in range(self.coarsest + 1)]


def on_exact_ladder(features: Sequence[Tensor], levels: Sequence[int], coarsest: int) -> list[Tensor]:
    """Resize the maps so that from each level to the next coarser level, height and width are exactly halved.

    A level is a number of halvings, usually the base-2 logarithm of the stride. The size at the level `coarsest` is the last
    map's size divided by 2 for each level from the last map's level to `coarsest`, and rounded up. The size at any other level
    is 2**(coarsest - level) times that size. Maps that already have their exact size are returned unchanged. Other maps, which
    come from irregular strides or odd sides, are resized (bilinear).

    Args:
        features: the maps, fine to coarse.
        levels: the level of each map.
        coarsest: the coarsest level that the decoder uses. It is at least the level of the last map.
    """
    steps = coarsest - levels[-1]
    height, width = ((side + 2**steps - 1) // 2**steps for side in features[-1].shape[-2:])
    exact = []
    for tensor, level in zip(features, levels, strict=True):
        factor = 2 ** (coarsest - level)  # not a shift, which ONNX lacks for dynamic sizes
        exact.append(zoo.plugin.resize_map(tensor, (height * factor, width * factor)))
    return exact


def check_widths(**widths: object) -> None:
    """Raise an OptionError unless each width (number of channels) is a whole number of at least 1."""
    for name, width in widths.items():
        if not are_counts(width):
            raise zoo.errors.OptionError(f"{name} must be a whole number of at least 1; found {width!r}.")


def finish(decoder: nn.Module, norm: str = "batch") -> None:
    """Replace the batch norms of one of smp's decoders with the given norm, and set smp's initial weights.

    Raises:
        zoo.errors.OptionError: the norm is unknown.
    """
    if norm != "batch":
        for module in list(decoder.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, make_norm(norm, child.num_features))
    initialize_decoder(decoder)


class SmpHead:
    """A mixin with smp's head. If the decoder's output stride is a power of two, the head upsamples to the image's resolution.

    For any other stride, the head does not upsample, and the model resizes the logits to the image's size.
    """

    head_kernel_size = 1
    out_channels: int
    out_stride: float

    def make_head(self, classes: int) -> nn.Module:
        """Return smp's head: (N, out_channels, H/out_stride, W/out_stride) -> (N, classes, H, W)."""
        stride = int(self.out_stride)
        factor = stride if stride == self.out_stride and stride.bit_count() == 1 else 1
        head: nn.Module = SegmentationHead(self.out_channels, classes, kernel_size=self.head_kernel_size, upsampling=factor)
        initialize_head(head)
        return head
