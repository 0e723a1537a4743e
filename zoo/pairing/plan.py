"""The plan: how an encoder and a decoder are joined, as plain data for explaining, building and saving a model. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from zoo.common.options import Options, plain
from zoo.pairing.size_plan import SizePlan
from zoo.registry.pyramid import FeatureMap, Pyramid

__all__ = ["Adapter", "Plan", "Route", "Unused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A small module between an encoder's feature map and a decoder's input.

    Attributes:
        kind: the type of the module. "project" is a 1x1 convolution that changes the number of channels. "fill" is a learned
            change of resolution: 2x2 transposed convolutions for upsampling, 3x3 convolutions of stride 2 for downsampling.
            "synthesize" is one level of the simple feature pyramid of ViTDet (Li et al. 2022, arXiv:2203.16527): 2x2
            transposed convolutions for upsampling or max-pooling for downsampling, then a 1x1 and a 3x3 convolution.
        in_channels: the number of input channels.
        out_channels: the number of output channels.
        steps: how many times the resolution is doubled or, if negative, halved.
    """

    kind: str
    in_channels: int
    out_channels: int
    steps: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of input channels, and the number of channels after each doubling or halving of the resolution."""
        if self.kind == "synthesize" and self.steps > 0:
            return tuple(max(1, self.in_channels // 2**step) for step in range(self.steps + 1))
        if self.kind == "synthesize":
            return (self.in_channels,) * (1 - self.steps)
        return (self.in_channels, *(self.out_channels,) * abs(self.steps))

    @property
    def parameters(self) -> int:
        """The number of parameters of the module."""
        if self.kind == "project":
            return (self.in_channels + 1) * self.out_channels
        taps = 4 if self.steps > 0 else 9
        norms = 2 * sum(self.widths[1:-1])
        if self.kind == "fill":
            return sum(taps * before * after + after for before, after in pairwise(self.widths)) + norms
        learned = sum(taps * before * after + after for before, after in pairwise(self.widths)) + norms if self.steps > 0 else 0
        out = self.out_channels
        return learned + self.widths[-1] * out + 9 * out * out + 4 * out

    def __str__(self) -> str:
        return f"{self._describe()} {self.in_channels} -> {self.out_channels} (+{self.parameters:,} parameters)"

    def _describe(self) -> str:
        if self.kind == "project":
            return "1x1 convolution"
        factor = 2 ** abs(self.steps)
        if self.kind == "fill":
            return f"learned upsampling x{factor}" if self.steps > 0 else f"learned downsampling /{factor}"
        change = f" x{factor}" if self.steps > 0 else f" /{factor}" if self.steps else ""
        return f"simple feature pyramid level{change}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one input of the decoder is made: from which map of the encoder (or the image), by which adapters, and why."""

    source: FeatureMap
    output: FeatureMap
    adapters: tuple[Adapter, ...] = ()
    reason: str
    is_image: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A map of the encoder that the plan does not use, and the reason."""

    source: FeatureMap
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of a negotiation: which feature map goes through which adapters to which decoder input.

    Attributes:
        encoder: the encoder's id.
        decoder: the decoder's id.
        routes: one for each decoder input, fine to coarse.
        unused: the maps of the encoder that are not used.
        sizes: what the model does with images of a size that the encoder does not accept.
        encoder_options: options that the plan adds to the pairing's encoder options, such as the output stride that the decoder
            wants.
        notes: sentences about other decisions and their reasons: the encoder's output stride, and how the logits reach the
            image's resolution.
    """

    encoder: str
    decoder: str
    routes: tuple[Route, ...]
    unused: tuple[Unused, ...] = ()
    sizes: SizePlan = field(default_factory=SizePlan)
    encoder_options: Mapping[str, Any] = field(default_factory=Options)
    notes: tuple[str, ...] = ()

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps that the encoder is built to return, fine to coarse."""
        routes = sorted((route for route in self.routes if not route.is_image), key=lambda route: route.source.stride)
        return tuple(dict.fromkeys(route.source.name for route in routes))

    @property
    def pyramid(self) -> Pyramid:
        """The feature maps that the decoder receives, after the adapters."""
        return tuple(route.output for route in self.routes)

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """All adapters, in the order of the decoder's inputs."""
        return tuple(adapter for route in self.routes for adapter in route.adapters)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as a dict of plain data, for JSON."""
        facts = {"maps": self.maps, "adapter_parameters": self.adapter_parameters}
        return {**asdict(self), "encoder_options": plain(self.encoder_options), **facts}

    @property
    def adapter_parameters(self) -> int:
        """The number of parameters of all adapters together."""
        return sum(adapter.parameters for adapter in self.adapters)
