"""What smp's decoders expect of smp's encoders and zoo's plans do not give: an image, empty maps, exact doubles, a head."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn

import zoo
from zoo_smp.listing import NORMS, are_counts
from zoo_unet.blocks import make_norm

__all__ = ["IMAGE", "Ladder", "check_widths", "finished", "make_head", "on_exact_ladder", "step_widths"]

IMAGE = 3
"""The image's channels as smp's decoders are told them; none looks at the image."""


class Ladder:
    """A pyramid as smp's encoders give one: a list by level, the image first, an empty map where there is none.

    Attributes:
        coarsest: the level of the last map; it is the number of steps of two from there to the image.
        channels: by level, 0 for a missing one.
    """

    def __init__(self, pyramid: zoo.plugin.Pyramid) -> None:
        self._levels = tuple(entry.level for entry in pyramid)
        self.coarsest = self._levels[-1]
        self.channels = [IMAGE] + [0] * self.coarsest
        for entry in pyramid:
            self.channels[entry.level] = entry.channels

    def filled(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return (N, channels[level], H >> level, W >> level) for each level, all sizes exact doubles of the coarsest's."""
        coarse = features[-1]
        given = dict(zip(self._levels, on_exact_ladder(features, self._levels, self.coarsest), strict=True))
        height, width = coarse.shape[-2:]

        def empty(level: int) -> Tensor:
            steps = self.coarsest - level
            return coarse.new_empty(coarse.shape[0], 0, height * 2**steps, width * 2**steps)

        return [given[level] if level in given else empty(level) for level in range(self.coarsest + 1)]


def on_exact_ladder(features: Sequence[Tensor], levels: Sequence[int], coarsest: int) -> list[Tensor]:
    """Return the maps, each of just 2**(coarsest - level) times the size that the last one has at the level `coarsest`.

    Those of another size (irregular ladders, an odd last map) are resampled (bilinear).
    """
    steps = coarsest - levels[-1]
    height, width = ((side + 2**steps - 1) // 2**steps for side in features[-1].shape[-2:])
    exact = []
    for tensor, level in zip(features, levels, strict=True):
        factor = 2 ** (coarsest - level)  # no shift, which ONNX has none of for open sizes
        exact.append(zoo.plugin.resized(tensor, (height * factor, width * factor)))
    return exact


def step_widths(channels: Sequence[int] | None, steps: int) -> list[int]:
    """Return the width of each step of two, coarse to fine: by default smp's 256, 128, 64, 32, 16, as many of the last.

    Raises:
        zoo.errors.OptionError: another number of widths than steps, or widths that are none.
    """
    if channels is None:
        return [min(256, 16 * 2**level) for level in range(steps - 1, -1, -1)]
    widths = list(channels) if isinstance(channels, list | tuple) else [channels]
    if len(widths) != steps or not are_counts(*widths):
        raise zoo.errors.OptionError(
            f"channels needs {steps} widths, whole numbers of at least 1, coarse to fine; found {channels!r}."
        )
    return widths  # type: ignore[return-value]


def check_widths(**widths: object) -> None:
    """Refuse a width that is none.

    Raises:
        zoo.errors.OptionError: one of them is no whole number of at least 1.
    """
    for name, width in widths.items():
        if not are_counts(width):
            raise zoo.errors.OptionError(f"{name} is a width, a whole number of at least 1; found {width!r}.")


def finished(decoder: nn.Module, norm: str = "batch") -> None:
    """Give a decoder of smp's the norm asked for in place of its batch norms, and smp's initial weights.

    Raises:
        zoo.errors.OptionError: an unknown norm.
    """
    if norm not in NORMS:
        raise zoo.errors.OptionError(f"norm is one of {', '.join(map(repr, NORMS))}; found {norm!r}.")
    if norm != "batch":
        for module in list(decoder.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, make_norm(norm, child.num_features))
    initialize_decoder(decoder)


def make_head(channels: int, classes: int, stride: float, *, kernel_size: int) -> nn.Module:
    """Return smp's head, which brings logits from a stride that is a power of two to the image's resolution.

    From another stride it does not: the model then resizes the logits to the image.
    """
    factor = int(stride) if stride == int(stride) and int(stride).bit_count() == 1 else 1
    head: nn.Module = SegmentationHead(channels, classes, kernel_size=kernel_size, upsampling=factor)
    initialize_head(head)
    return head
