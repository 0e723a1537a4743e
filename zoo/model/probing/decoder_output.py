"""Run a decoder on random maps, and measure the channels and the stride of its output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.errors import PluginError
from zoo.model.outputs import describe
from zoo.model.probing.forward_inputs import ForwardInputs
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import FeatureMap, Pyramid

__all__ = ["image_side", "is_coarsest", "measure_output", "random_maps", "uses_finest"]


def measure_output(decoder: nn.Module, pyramid: Pyramid, origin: str, inputs: ForwardInputs) -> tuple[int, float]:
    """Return the number of channels and the stride of a decoder's output for this pyramid, measured in two runs.

    The two runs are for images of different aspect ratios, so that a fixed size or a wrong order of the axes is detected. The
    runs use the default device. They do not use the meta device unless it is the default, because some operations (such as
    transposed convolutions) do not check their channels there.
    """
    side = image_side(pyramid)
    sizes = ((side, 2 * side), (2 * side, side))
    outputs = [_run(decoder, pyramid, size, origin, inputs) for size in sizes]
    _check_follows(outputs, sizes, origin)
    return outputs[0].shape[1], side / outputs[0].shape[2]


def is_coarsest(out_stride: float, pyramid: Pyramid) -> bool:
    """Return whether a map of this stride is as coarse as the coarsest map. Return False for a pyramid of a single stride."""
    strides = [entry.stride for entry in pyramid]
    return min(strides) < max(strides) <= 1.25 * out_stride


def uses_finest(decoder: nn.Module, pyramid: Pyramid) -> bool:
    """Return whether a decoder's output depends on the finest map that the decoder receives."""
    finest, *others = random_maps(pyramid, (image_side(pyramid), image_side(pyramid)))
    with torch.no_grad():
        before, after = (decoder.eval()([each, *others]) for each in (finest, 1 - finest))
    return not before.is_meta and not torch.equal(before, after)


def image_side(pyramid: Pyramid) -> int:
    """Return the length of a side of an image, in pixels, for which the coarsest map has at least four pixels on that side."""
    side: int = 4 * 2 ** math.ceil(math.log2(max(feature_map.stride for feature_map in pyramid)))
    return side


def random_maps(pyramid: Sequence[FeatureMap], size: Size) -> list[Tensor]:
    """Return random feature maps for a batch of two images of this size."""
    return [torch.rand(2, entry.channels, *(max(1, round(side / entry.stride)) for side in size)) for entry in pyramid]


def _run(decoder: nn.Module, pyramid: Pyramid, size: Size, origin: str, inputs: ForwardInputs) -> Tensor:
    """Return a decoder's output for random maps of an image of this size."""
    maps = random_maps(pyramid, size)
    try:
        with torch.no_grad():
            output: object = decoder.eval()(maps)
    except Exception as cause:
        shapes = ", ".join(str(tuple(entry.shape)) for entry in maps) + (" on the meta device" if maps[0].is_meta else "")
        reason = str(cause).partition("\n")[0].rstrip(". ")
        convention = "one by one, fine to coarse"
        if inputs.takes_list:
            convention = "as one list, fine to coarse; annotate its input as torch.Tensor if it takes a single map"
        elif inputs.fewest == 1 < (inputs.most or 1):
            convention += "; annotate its first input as list[torch.Tensor] if that is the list of all maps"
        raise PluginError(
            f"{origin} raised {type(cause).__name__} for maps of shape {shapes}: {reason}. Its forward receives the maps "
            f"{convention}. If it takes only certain maps, declare them: zoo.from_channels(..., needs=zoo.Needs(strides=...))."
        ) from cause
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise PluginError(f"{origin} must return one tensor (N, channels, h, w); found {describe(output)}.")
    return output


def _check_follows(outputs: Sequence[Tensor], sizes: Sequence[Size], origin: str) -> None:
    """Raise a PluginError unless the outputs are maps (N, channels, h, w) with equal channels and strides."""
    if _follow(outputs, sizes, axes=(2, 3)) and len({output.shape[1] for output in outputs}) == 1:
        return
    found = " and ".join(
        f"{describe(output)} for an image of {height} x {width}" for output, (height, width) in zip(outputs, sizes, strict=True)
    )
    remedy = (
        "The output has its channels last, so return x.permute(0, 3, 1, 2)."
        if _follow(outputs, sizes, axes=(1, 2))
        else "Take every size from the maps that forward receives."
    )
    raise PluginError(
        f"{origin} returned {found}. It must return a map (N, channels, h, w) whose h and w are the image's height and width "
        f"divided by one stride, the same for every image. {remedy}"
    )


def _follow(outputs: Sequence[Tensor], sizes: Sequence[Size], axes: tuple[int, int]) -> bool:
    """Return whether the lengths of the outputs along `axes` are the image sizes divided by one stride, up to rounding."""
    shares = [
        output.shape[axis] / whole
        for output, size in zip(outputs, sizes, strict=True)
        for axis, whole in zip(axes, size, strict=True)
    ]
    return 0.75 * max(shares) < min(shares)
