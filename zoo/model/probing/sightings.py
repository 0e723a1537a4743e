"""Choose a module's feature maps among the tensors that were seen in it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.model.probing.measurement import Layout
from zoo.registry.pyramid import FeatureMap

__all__ = ["Sighting", "select_maps"]

_TRUNK_LEVELS = 3  # a block shows two where it strides: what it expands at the finer one, and its output


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One name of one map.

    Attributes:
        name: the path of the module that returned it, or a key of what forward returned.
        depth: how deep it lies in the module: 1 for what the module's own forward computes.
        value: identifies the map, which may have several names.
        source: where an encoder finds it: a node of the graph, or the `Location` in a call.
        layout: channels, stride and the order of its axes.
        parameters: the ids of the parameters that it is computed from.
    """

    name: str
    depth: int
    value: Any
    source: Any
    layout: Layout
    parameters: frozenset[int]

    @property
    def level(self) -> int:
        """The power of two that the stride is nearest to."""
        return round(math.log2(self.layout.stride))

    def as_map(self) -> FeatureMap:
        """Return it as an entry of a pyramid."""
        return FeatureMap(name=self.name, channels=self.layout.channels, stride=self.layout.stride)


def select_maps(sightings: Sequence[Sighting], needed: frozenset[int]) -> list[Sighting]:
    """Return the last map at each level, at the shallowest depth that shows the level, fine to coarse.

    A module that shows three levels or more is a trunk, not a stage: it does not count as a level of depth. If these maps
    leave out parameters that the last map depends on, the last map that does depend on them takes its level.
    """
    # How many levels each module shows, to tell a trunk from a stage.
    levels: defaultdict[str, set[int]] = defaultdict(set)
    for sighting in sightings:
        for above in _enclosing_paths(sighting.name):
            levels[above].add(sighting.level)
    trunks = {path for path, shown in levels.items() if len(shown) >= _TRUNK_LEVELS}
    # Later sightings of a level replace earlier ones of the same depth: the last block of a stage gives its output. A trunk
    # that returns what its last stage returned is not counted again, so that the stage's name stays.
    chosen: dict[int, tuple[int, Sighting]] = {}
    for sighting in sightings:
        repeats = sighting.name in trunks and sighting.level in chosen and chosen[sighting.level][1].value == sighting.value
        depth = sighting.depth - sum(above in trunks for above in _enclosing_paths(sighting.name))
        if not repeats and (sighting.level not in chosen or depth <= chosen[sighting.level][0]):
            chosen[sighting.level] = depth, sighting
    if missing := needed.difference(*(sighting.parameters for _, sighting in chosen.values())):
        later = [sighting for sighting in sightings if missing <= sighting.parameters]
        if later:
            # The shallowest of those that depend on all that is missing, the last of them first.
            last = min(reversed(later), key=lambda sighting: sighting.depth)
            chosen[last.level] = last.depth, last
    return sorted((sighting for _, sighting in chosen.values()), key=lambda sighting: sighting.layout.stride)


def _enclosing_paths(name: str) -> list[str]:
    """Return the paths of the modules around this one: `a` and `a.b` for `a.b.c`."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]
