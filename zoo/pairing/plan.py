"""The result of a negotiation: plain facts that explain, build and save read. Torch-free."""

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
        kind: "project", a 1x1 convolution to another width; "fill", a learned change of resolution (2x2 transposed
            convolutions up, 3x3 convolutions of stride 2 down); "synthesize", one level of the simple feature pyramid of
            ViTDet (Li et al. 2022, arXiv:2203.16527): 2x2 transposed convolutions up or max-pooling down, then a 1x1
            and a 3x3 convolution.
        in_channels: channels that go in.
        out_channels: channels that come out.
        steps: how often the resolution is doubled; negative, how often it is halved.
    """

    kind: str
    in_channels: int
    out_channels: int
    steps: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels before the first and after each doubling or halving."""
        if self.kind == "synthesize" and self.steps > 0:
            return tuple(max(1, self.in_channels // 2**step) for step in range(self.steps + 1))
        if self.kind == "synthesize":
            return (self.in_channels,) * (1 - self.steps)
        return (self.in_channels, *(self.out_channels,) * abs(self.steps))

    @property
    def parameters(self) -> int:
        """How many parameters the module adds."""
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
    """One decoder input: the encoder's map it comes from (or the image), the adapters between, and why."""

    source: FeatureMap
    output: FeatureMap
    adapters: tuple[Adapter, ...] = ()
    reason: str
    is_image: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A map that the encoder could give and the plan leaves out, and why."""

    source: FeatureMap
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of a negotiation: which feature map goes through which adapters to which decoder input.

    Attributes:
        encoder: the encoder's id.
        decoder: the decoder's id.
        routes: one a decoder input, fine to coarse.
        unused: the maps left out.
        sizes: how an image is treated whose size the encoder does not take.
        encoder_options: additions of the plan to the encoder's options, such as the output stride that the decoder wants.
        notes: further decisions, and why.
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
        """The names of the maps that the encoder is built to give, fine to coarse."""
        routes = sorted((route for route in self.routes if not route.is_image), key=lambda route: route.source.stride)
        return tuple(dict.fromkeys(route.source.name for route in routes))

    @property
    def pyramid(self) -> Pyramid:
        """What the decoder is built for."""
        return tuple(route.output for route in self.routes)

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """Every adapter, level by level."""
        return tuple(adapter for route in self.routes for adapter in route.adapters)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as JSON holds it."""
        facts = {"maps": self.maps, "adapter_parameters": self.adapter_parameters}
        return {**asdict(self), "encoder_options": plain(self.encoder_options), **facts}

    @property
    def adapter_parameters(self) -> int:
        """How many parameters all adapters add."""
        return sum(adapter.parameters for adapter in self.adapters)
