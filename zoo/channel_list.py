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
        fewest, most = _named_inputs(decoder)
        self.needs = Needs(min_levels=fewest, max_levels=most, distinct_strides=False)
        self.origin = f"{decoder.__module__}:{getattr(decoder, '__qualname__', repr(decoder))}({_listed(defaults)})"
        self.__doc__ = decoder.__doc__
        try:
            self.__signature__ = inspect.signature(decoder)
        except (TypeError, ValueError) as cause:
            raise RegistrationError(f"zoo.from_channels wraps a decoder class; found {decoder!r}.") from cause

    def __call__(self, pyramid: Pyramid, **options: Any) -> ChannelListDecoder:
        """Build the wrapped decoder for the pyramid's channels, and measure on meta what it gives."""
        options = {**self.defaults, **options}
        channels = [feature_map.channels for feature_map in pyramid]
        module = self.decoder(channels, **options)
        try:
            with torch.device("meta"):
                twin = self.decoder(channels, **options)
        except Exception as cause:
            raise PluginError(
                f"{self.origin} cannot be made on the meta device, where what it gives is measured: "
                f"{type(cause).__name__}: {cause}. Let its __init__ read no tensor's value."
            ) from cause
        return ChannelListDecoder(module, *_measured(twin, pyramid, self.origin))

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
            f"{origin} raised {type(cause).__name__} for meta tensors of shape {shapes}: {cause}. "
            "Its forward gets the encoder's maps one by one, fine to coarse, and may read no tensor's value."
        ) from cause
    if not isinstance(output, Tensor) or output.ndim != 4:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(f"{origin} must return one tensor (N, channels, h, w); found {found}.")
    return output.shape[1], size / output.shape[2]


def _named_inputs(decoder: Callable[..., nn.Module]) -> tuple[int, int | None]:
    """Return how many maps `forward` takes, at least and at most; None where it takes any number (`*features`)."""
    forward = getattr(decoder, "forward", None)
    if forward is None:
        return 1, None
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = [entry for entry in parameters if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)]
    required = [entry for entry in named if entry.default is entry.empty]
    takes_any = any(entry.kind is entry.VAR_POSITIONAL for entry in parameters)
    return max(1, len(required)), None if takes_any else max(1, len(named))


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
