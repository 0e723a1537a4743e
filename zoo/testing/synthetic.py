"""Generate synthetic pyramids of many kinds that meet a decoder's needs, and random tensors of their shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import NegotiationError
from zoo.pairing.negotiation import negotiate
from zoo.pairing.plan import Plan, Route
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import FeatureMap, Needs, Pyramid
from zoo.testing.surroundings import import_library, make_generator

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["LADDERS", "features", "map_size", "plan_of", "plans", "pyramids", "usual_plans"]

LADDERS: tuple[tuple[float, ...], ...] = (
    (2, 4, 8, 16, 32),
    (4, 8, 16, 32),
    (1, 2, 4, 8, 16, 32),
    (2, 4, 4, 8, 16, 32),
    (2, 8, 32),
    (8, 16, 32),
    (4, 8),
    (2, 4, 8, 16, 32, 64),
    (1, 2, 4, 8, 16, 32, 64, 128),
    (7, 14, 28),
    (17.14, 17.14, 17.14),
    (16, 16, 16, 16),
    (14, 14, 14, 14, 14, 14),
    (8,),
    (32,),
)
"""The source pyramids: each entry contains the strides of the maps of one synthetic encoder.

The first entries are usual for convolutional networks. The other entries have gaps, few or many levels, or equal or fractional
strides."""
CHANNELS = (1, 3, 5, 8, 24, 64)
USUAL_CHANNELS = (8, 12, 16, 20, 24, 28, 32, 36)
"""The channels of the maps in `usual_plans`. They all differ, so that maps in a wrong order are detected."""


def pyramids(needs: Needs) -> SearchStrategy[Pyramid]:
    """Return a hypothesis strategy of valid pyramids for a decoder with these needs.

    Each pyramid is what a decoder's factory receives in a pairing. `zoo.negotiate` makes it from a synthetic source pyramid:
    it selects, projects, fills in and synthesizes maps to meet the needs.

    Args:
        needs: the needs of the decoder.

    Raises:
        NegotiationError: no synthetic pyramid meets these needs.
        ZooError: hypothesis is not installed.

    Example:
        >>> @given(pyramids(zoo.Needs(min_levels=2)))
        ... def test_my_decoder(pyramid): ...
    """
    return plans(needs).map(lambda plan: plan.pyramid)


def plans(needs: Needs) -> SearchStrategy[Plan]:
    """Return a hypothesis strategy of plans whose pyramids meet these needs. A plan also records what each map is made from.

    The argument and the errors are those of `pyramids`.
    """
    strategies = import_library("hypothesis").strategies
    fitting = [plan_ladder for plan_ladder in LADDERS if _fits(plan_ladder, needs)]
    if not fitting:
        plan_of(LADDERS[0], USUAL_CHANNELS, needs)  # raises the error with the reason
    widths = strategies.lists(strategies.sampled_from(CHANNELS), min_size=8, max_size=8)
    drawn: SearchStrategy[Plan] = strategies.builds(
        lambda strides, channels: plan_of(strides, channels, needs), strategies.sampled_from(fitting), widths
    )
    return drawn


def usual_plans(needs: Needs) -> list[Plan]:
    """Return one plan for each synthetic pyramid of `LADDERS` that meets the needs, in the order of `LADDERS`.

    Raises:
        NegotiationError: no synthetic pyramid meets the needs.
    """
    fitting = [ladder for ladder in LADDERS if _fits(ladder, needs)]
    return [plan_of(ladder, USUAL_CHANNELS, needs) for ladder in fitting or LADDERS[:1]]


def plan_of(strides: Sequence[float], channels: Sequence[int], needs: Needs) -> Plan:
    """Return the plan for a source pyramid of these strides and channels.

    Raises:
        NegotiationError: the source pyramid cannot meet the needs.
    """
    source = tuple(
        FeatureMap(name=f"map{index}", channels=width, stride=stride)
        for index, (stride, width) in enumerate(zip(strides, channels, strict=False))
    )
    return negotiate(source, needs, encoder="a synthetic pyramid", decoder="the decoder")


def features(plan: Plan, size: Size, batch: int = 2, *, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    """Return random tensors (batch, C, h, w) of the shapes that the plan's maps have for an image of this size."""
    shapes = [(batch, route.output.channels, *map_size(route, size)) for route in plan.routes]
    if device == "meta":
        return [torch.empty(shape, device="meta") for shape in shapes]
    generator = make_generator(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def map_size(route: Route, size: Size) -> Size:
    """Return (h, w) of one decoder input for an image of this size.

    The size of the source map is rounded up, as in a padded convolution. The adapters then change the size.
    """
    height, width = (_adapt_length(math.ceil(length / route.source.stride), route) for length in size)
    return height, width


def _adapt_length(length: int, route: Route) -> int:
    for adapter in route.adapters:
        length = length * 2**adapter.steps if adapter.steps > 0 else math.ceil(length / 2**-adapter.steps)
    return length


def _fits(strides: Sequence[float], needs: Needs) -> bool:
    try:
        plan_of(strides, USUAL_CHANNELS, needs)
    except NegotiationError:
        return False
    return True
