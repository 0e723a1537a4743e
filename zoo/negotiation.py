"""Pure and torch-free: a pyramid and a decoder's needs make a plan, or every reason why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo.errors import NegotiationError
from zoo.pyramid import FeatureMap, Needs, Pyramid

__all__ = ["Adapter", "Plan", "Route", "Unused", "negotiate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A small module between an encoder's feature map and a decoder's input.

    Attributes:
        kind: "project", a 1x1 convolution to another width.
        in_channels: channels that go in.
        out_channels: channels that come out.
    """

    kind: str
    in_channels: int
    out_channels: int

    @property
    def parameters(self) -> int:
        """How many parameters the module adds."""
        return (self.in_channels + 1) * self.out_channels

    def __str__(self) -> str:
        return f"1x1 convolution {self.in_channels} -> {self.out_channels} (+{self.parameters:,} parameters)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One decoder input: the encoder's map it comes from, what is put between, and why."""

    source: FeatureMap
    output: FeatureMap
    adapters: tuple[Adapter, ...] = ()
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A map that the encoder could give and the plan leaves out, and why."""

    source: FeatureMap
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of a negotiation: which feature map goes through which adapters to which decoder input."""

    encoder: str
    decoder: str
    routes: tuple[Route, ...]
    unused: tuple[Unused, ...] = ()

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps that the encoder is built to give, fine to coarse."""
        return tuple(dict.fromkeys(route.source.name for route in self.routes))

    @property
    def pyramid(self) -> Pyramid:
        """What the decoder is built for."""
        return tuple(route.output for route in self.routes)

    @property
    def size_multiple(self) -> int:
        """What H and W are brought to a multiple of: the coarsest stride, as a power of two or as the whole number it is."""
        coarsest = max(route.source.stride for route in self.routes)
        return int(coarsest) if coarsest == int(coarsest) else 2 ** math.ceil(math.log2(coarsest))

    @property
    def adapter_parameters(self) -> int:
        """How many parameters all adapters add."""
        return sum(adapter.parameters for route in self.routes for adapter in route.adapters)


def negotiate(
    pyramid: Pyramid,
    needs: Needs,
    *,
    encoder: str,
    decoder: str,
    levels: int | None = None,
    adapters: str = "auto",
) -> Plan:
    """Match what an encoder gives with what a decoder needs, in a fixed order of preference.

    Maps are selected first (one a stride, the last of equals; then the `levels` finest; then the decoder's exact strides;
    then the coarsest `max_levels`); what is left is projected to the decoder's width where it asks for one.

    Args:
        pyramid: every map the encoder can give, fine to coarse.
        needs: what the decoder asks for.
        encoder: the encoder's id, for messages and the plan.
        decoder: the decoder's id, likewise.
        levels: how many strides to use, counted from the finest; None for all.
        adapters: "auto", or "none" to insert nothing.

    Raises:
        NegotiationError: nothing fits; the message names the encoder, the decoder, each level and what would fix it.
    """
    selection = _Selection(kept=tuple(pyramid))
    problems: list[str] = []
    if needs.distinct_strides or needs.strides is not None:
        selection = selection.without(_earlier_of_one_stride(selection.kept))
    if levels is not None:
        strides = _strides(selection.kept)
        if levels > len(strides):
            problems.append(
                f"levels={levels} asks for {levels} strides, the encoder gives {len(strides)}; ask for at most {len(strides)}"
            )
        reason = f"levels={levels} keeps the {levels} finest strides"
        selection = selection.without({entry: reason for entry in selection.kept if entry.level not in strides[:levels]})
    if needs.strides is not None:
        wanted = [round(math.log2(stride)) for stride in needs.strides]
        given = _strides(selection.kept)
        problems += [
            f"stride {2**level} is needed and no feature map in play has it; choose another encoder"
            for level in wanted
            if level not in given
        ]
        reason = f"the decoder takes strides {', '.join(map(str, needs.strides))}"
        selection = selection.without({entry: reason for entry in selection.kept if entry.level not in wanted})
    if needs.output_stride is not None:
        limit = needs.output_stride
        reason = f"the decoder wants no map coarser than stride {limit}"
        selection = selection.without({entry: reason for entry in selection.kept if entry.level > round(math.log2(limit))})
    if needs.max_levels is not None and len(selection.kept) > needs.max_levels:
        count = needs.max_levels
        reason = f"the decoder takes {count} map{'s' if count > 1 else ''}, the coarsest"
        selection = selection.without(dict.fromkeys(selection.kept[: len(selection.kept) - count], reason))
    if len(selection.kept) < needs.min_levels and not problems:
        problems.append(
            f"the decoder needs at least {needs.min_levels} feature maps and {len(selection.kept)} are left; choose "
            + ("another encoder" if levels is None else "a higher levels=, or another encoder")
        )
    routes = tuple(_route(entry, selection, needs) for entry in selection.kept)
    if adapters == "none":
        problems += [
            f"{route.source} would need {route.adapters[0]}; allow it with adapters='auto'"
            for route in routes
            if route.adapters
        ]
    if problems:
        raise NegotiationError(_refusal(encoder, decoder, pyramid, needs, selection, problems))
    unused = tuple(Unused(source=entry, reason=selection.dropped[entry]) for entry in pyramid if entry in selection.dropped)
    return Plan(encoder=encoder, decoder=decoder, routes=routes, unused=unused)


class _Selection:
    """The maps still in play, and why each of the others is not."""

    def __init__(self, kept: Pyramid, dropped: dict[FeatureMap, str] | None = None) -> None:
        self.kept = kept
        self.dropped = dropped or {}

    def without(self, reasons: dict[FeatureMap, str]) -> _Selection:
        return _Selection(tuple(entry for entry in self.kept if entry not in reasons), self.dropped | reasons)


def _earlier_of_one_stride(maps: Sequence[FeatureMap]) -> dict[FeatureMap, str]:
    last = {entry.level: entry for entry in maps}
    return {
        entry: f"shares stride {last[entry.level].stride:g} with {last[entry.level].name}, which comes later"
        for entry in maps
        if last[entry.level] is not entry
    }


def _strides(maps: Sequence[FeatureMap]) -> list[int]:
    return sorted({entry.level for entry in maps})


def _route(source: FeatureMap, selection: _Selection, needs: Needs) -> Route:
    rivals = [entry.name for entry in selection.dropped if entry.level == source.level]
    if rivals and needs.distinct_strides:
        reason = f"last of the maps at stride {source.stride:g} (others: {', '.join(rivals)})"
    elif rivals:
        reason = f"the coarsest wanted; {', '.join(rivals)} at stride {source.stride:g} left out"
    elif any(entry.level == source.level for entry in selection.kept if entry is not source):
        reason = f"one of several maps at stride {source.stride:g}; the decoder takes them all"
    else:
        reason = f"the only map at stride {source.stride:g}"
    if needs.channels is None or needs.channels == source.channels:
        return Route(source=source, output=source, reason=reason)
    project = Adapter(kind="project", in_channels=source.channels, out_channels=needs.channels)
    return Route(
        source=source,
        output=replace(source, channels=needs.channels),
        adapters=(project,),
        reason=f"{reason}; the decoder wants {needs.channels} channels",
    )


def _refusal(encoder: str, decoder: str, pyramid: Pyramid, needs: Needs, selection: _Selection, problems: Sequence[str]) -> str:
    lines = [f"{encoder} cannot serve {decoder} as asked.", f"  {decoder} needs: {needs}", f"  {encoder} gives:"]
    for entry in pyramid:
        state = "unused: " + selection.dropped[entry] if entry in selection.dropped else "usable"
        lines.append(f"    {entry}: {state}")
    lines += [f"  Problem: {problem}." for problem in problems]
    return "\n".join(lines)
