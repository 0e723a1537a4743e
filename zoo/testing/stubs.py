"""A minimal encoder and a minimal decoder. Each completes a model whose other part, a decoder or an encoder, is under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.registry.pyramid import FeatureMap, Pyramid
from zoo.registry.registry import MODULE, Entry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["StubDecoder", "StubEncoder", "stub_decoder", "stub_encoder"]


class StubEncoder(nn.Module):
    """One 1x1 convolution for each map, with the map's stride.

    Shapes: (N, in_channels, H, W) -> for each map (N, C, H/stride, W/stride), rounded up.
    """

    def __init__(self, *, maps: Sequence[str], in_channels: int, weights: str | None, pyramid: Pyramid) -> None:
        super().__init__()
        facts = {entry.name: entry for entry in pyramid}
        self.convs = nn.ModuleList(_make_sampling_conv(in_channels, facts[name]) for name in maps)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the requested maps."""
        return [conv(image) for conv in self.convs]


class StubDecoder(nn.Module):
    """The sum of all maps, after each is projected to 8 channels and resized to the finest map.

    Shapes: a list of maps (N, C_i, h_i, w_i), fine to coarse -> (N, 8, h_0, w_0).
    """

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.out_channels, self.out_stride = 8, pyramid[0].stride
        self.convs = nn.ModuleList(nn.Conv2d(entry.channels, 8, kernel_size=1) for entry in pyramid)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the sum of the projected maps, at the size of the finest map."""
        maps = [conv(feature) for conv, feature in zip(self.convs, features, strict=True)]
        for entry in maps[1:]:
            maps[0] = maps[0] + F.interpolate(entry, size=maps[0].shape[-2:])
        result: Tensor = maps[0]
        return result


def stub_encoder(pyramid: Pyramid) -> Entry[EncoderSpec]:
    """Return the entry of an encoder with this pyramid. The entry is not registered."""
    spec = EncoderSpec(name="StubEncoder", factory=StubEncoder, pyramid=pyramid, constants={"pyramid": pyramid})
    return _entry("encoder", spec)


def stub_decoder() -> Entry[DecoderSpec]:
    """Return the entry of a decoder for any pyramid. The entry is not registered."""
    return _entry("decoder", DecoderSpec(name="StubDecoder", factory=StubDecoder))


def _entry(kind: Any, spec: Any) -> Entry[Any]:
    return Entry(kind=kind, plugin=MODULE, distribution="", version="", spec=spec)


def _make_sampling_conv(in_channels: int, facts: FeatureMap) -> nn.Module:
    return nn.Conv2d(in_channels, facts.channels, kernel_size=1, stride=max(1, round(facts.stride)))
