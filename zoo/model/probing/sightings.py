"""Choose a module's feature maps among the maps that were found in it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.model.probing.measurement import Layout
from zoo.registry.pyramid import FeatureMap

__all__ = ["Sighting", "select_maps"]

_TRUNK_LEVELS = 3  # a single block with a stride has maps of two levels: its expanded input and its output


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A map that was found in a module, under one name. A map with several names has one sighting for each name.

    Attributes:
        name: the path of the module that returned the map, or the map's key in the output of forward.
        depth: how deep inside the module the map is computed: 1 if the module's own forward computes it.
        value: an identifier of the map, which is the same in all sightings of this map.
        source: where an encoder takes the map from: a node of the graph, or a `Location` in a call of the module.
        layout: the channels, the stride and the order of the axes.
        parameters: the ids of the parameters that the map depends on.
    """

    name: str
    depth: int
    value: Any
    source: Any
    layout: Layout
    parameters: frozenset[int]

    @property
    def level(self) -> int:
        """The exponent of the power of two nearest to the stride."""
        return round(math.log2(self.layout.stride))

    def as_map(self) -> FeatureMap:
        """Return the map as an entry of a pyramid."""
        return FeatureMap(name=self.name, channels=self.layout.channels, stride=self.layout.stride)


def select_maps(sightings: Sequence[Sighting], needed: frozenset[int]) -> list[Sighting]:
    """Return one map of each level (see `Sighting.level`), fine to coarse.

    Among the maps of a level, only those at the shallowest depth are considered, and the last of these is chosen. A module that
    contains maps of three or more levels is a trunk and not a stage. It does not add to the depth of the maps inside it. If the
    chosen maps leave out parameters in `needed`, a map that depends on all of these parameters replaces the chosen map of its
    level, provided that there is such a map.
    """
    # The levels inside each module, to distinguish trunks from stages.
    levels: defaultdict[str, set[int]] = defaultdict(set)
    for sighting in sightings:
        for above in _enclosing_paths(sighting.name):
            levels[above].add(sighting.level)
    trunks = {path for path, shown in levels.items() if len(shown) >= _TRUNK_LEVELS}
    # Later maps of a level replace earlier ones that are not shallower: the last block of a stage returns the stage's output.
    # A trunk that returns the map of its last stage does not replace that map, which keeps the stage's name.
    chosen: dict[int, tuple[int, Sighting]] = {}
    for sighting in sightings:
        repeats = sighting.name in trunks and sighting.level in chosen and chosen[sighting.level][1].value == sighting.value
        depth = sighting.depth - sum(above in trunks for above in _enclosing_paths(sighting.name))
        if not repeats and (sighting.level not in chosen or depth <= chosen[sighting.level][0]):
            chosen[sighting.level] = depth, sighting
    if missing := needed.difference(*(sighting.parameters for _, sighting in chosen.values())):
        later = [sighting for sighting in sightings if missing <= sighting.parameters]
        if later:
            # The shallowest map that depends on all missing parameters. If there are several, the last of them.
            last = min(reversed(later), key=lambda sighting: sighting.depth)
            chosen[last.level] = last.depth, last
    return sorted((sighting for _, sighting in chosen.values()), key=lambda sighting: sighting.layout.stride)


def _enclosing_paths(name: str) -> list[str]:
    """Return the paths of the modules that contain a module: `a` and `a.b` for `a.b.c`."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]
