"""Decoders as tutorials write them: a class made from a plain channel list, taken over untouched."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import PluginError, RegistrationError
from zoo.pyramid import Needs, Pyramid

__all__ = ["ChannelListDecoder", "ChannelListFactory", "from_channels"]


def from_channels(decoder: Callable[..., nn.Module], **defaults: Any) -> ChannelListFactory:
    """Wrap `decoder(in_channels_list, **options)` with `forward(x1, ..., xn)`, so that it registers as it is.

    The class gets the channels of *all* the encoder's maps, fine to coarse, as `zoo.channels` lists them, and its
    `forward` gets the maps in that order. If `forward` names its inputs one by one, that many maps are needed. How many
    channels it returns, and at which stride, is measured on the meta device when it is built.

    Args:
        decoder: the class (or a function that makes the module).
        defaults: keywords handed to it each time, such as `out_channels=256`; a pairing's `decoder_options` override them.

    Example:
        >>> zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=256))
        >>> model = zoo.build("resnet18", "basic", classes=19)
    """
    if not callable(decoder):
        raise RegistrationError(f"zoo.from_channels wraps a decoder class; found {decoder!r}.")
    return ChannelListFactory(decoder, defaults)


class ChannelListFactory:
    """Makes a `ChannelListDecoder` for any pyramid; its `needs` follow from the wrapped class's `forward`."""

    def __init__(self, decoder: Callable[..., nn.Module], defaults: dict[str, Any]) -> None:
        self.decoder = decoder
        self.defaults = defaults
        count = _named_inputs(decoder)
        self.needs = Needs(min_levels=count or 1, max_levels=count, distinct_strides=False)
        self.origin = f"{decoder.__module__}:{getattr(decoder, '__qualname__', repr(decoder))}({_listed(defaults)})"
        self.__doc__ = decoder.__doc__
        self.__signature__ = inspect.signature(decoder)

    def __call__(self, pyramid: Pyramid, **options: Any) -> ChannelListDecoder:
        """Build the wrapped decoder for the pyramid's channels, and measure on meta what it gives."""
        options = {**self.defaults, **options}
        channels = [feature_map.channels for feature_map in pyramid]
        with torch.device("meta"):
            out_channels, out_stride = _measured(self.decoder(channels, **options), pyramid, self.origin)
        return ChannelListDecoder(self.decoder(channels, **options), out_channels, out_stride)

    def __repr__(self) -> str:
        return f"zoo.from_channels({self.origin})"


class ChannelListDecoder(nn.Module):
    """A wrapped decoder: a list of maps in, one map out."""

    def __init__(self, module: nn.Module, out_channels: int, out_stride: float) -> None:
        super().__init__()
        self.module = module
        self.out_channels = out_channels
        self.out_stride = out_stride

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Hand the maps to the wrapped module one by one."""
        output: Tensor = self.module(*features)
        return output


def _measured(module: nn.Module, pyramid: Pyramid, origin: str) -> tuple[int, float]:
    """Return the channels and the stride of what `module` gives for this pyramid; meta tensors in, shapes out."""
    size = 4 * 2 ** math.ceil(math.log2(max(feature_map.stride for feature_map in pyramid)))
    maps = [
        torch.empty(2, entry.channels, *(max(1, round(side / entry.stride)) for side in (size, 2 * size)), device="meta")
        for entry in pyramid
    ]
    try:
        output = module.eval()(*maps)
    except Exception as cause:
        shapes = ", ".join(str(tuple(entry.shape)) for entry in maps)
        raise PluginError(
            f"{origin} raised {type(cause).__name__} for maps of shape {shapes}: {cause}. "
            "Its forward gets the encoder's maps one by one, fine to coarse."
        ) from cause
    if not isinstance(output, Tensor) or output.ndim != 4:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(f"{origin} must return one tensor (N, channels, h, w); found {found}.")
    return output.shape[1], size / output.shape[2]


def _named_inputs(decoder: Callable[..., nn.Module]) -> int | None:
    """Return how many maps `forward` names one by one; None where it takes any number (`*features`) or cannot be asked."""
    forward = getattr(decoder, "forward", None)
    if forward is None:
        return None
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    if any(entry.kind is entry.VAR_POSITIONAL for entry in parameters):
        return None
    required = [
        entry
        for entry in parameters
        if entry.default is entry.empty and entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) or None


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
