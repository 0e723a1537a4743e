"""The passes over a graph, by name and in order, and what each did where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from zoo.errors import OptionError
from zoo.inference.deployment.constants import fold_constants
from zoo.inference.deployment.graph import Cost, Graph
from zoo.inference.deployment.identities import drop_identities
from zoo.inference.deployment.norms import fold_norms
from zoo.inference.deployment.resizes import convolve_at_low_resolution, merge_transposed, project_before_resize
from zoo.inference.deployment.sites import Sites

__all__ = ["PASSES", "Done", "apply_counted", "apply_passes", "check_passes"]

PASSES: dict[str, Callable[[Graph, Sites], None]] = {
    "drop-identities": drop_identities,
    "fold-constants": fold_constants,
    "fold-norms": fold_norms,
    "merge-transposed": merge_transposed,
    "low-resolution": convolve_at_low_resolution,
    "project-before-resize": project_before_resize,
}
"""What each changes is in the docstring of its function; the order is the one that they are applied in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a pass did.

    Attributes:
        name: the pass's.
        places: names of the submodules where it applied.
        left: where it might have applied and did not, and why.
        saved: what a call computes and writes less than before; below 0 where it is more.
    """

    name: str
    places: tuple[str, ...]
    left: tuple[tuple[str, str], ...]
    saved: Cost


def check_passes(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in the order in which they are applied, all of them for None.

    Raises:
        OptionError: a name that no pass has.
    """
    if names is None:
        return tuple(PASSES)
    unknown = [name for name in names if name not in PASSES]
    if isinstance(names, str) or unknown:
        raise OptionError(f"passes takes names among {', '.join(map(repr, PASSES))}; found {names!r}.")
    return tuple(name for name in PASSES if name in names)


def apply_passes(graph: Graph, names: Sequence[str]) -> None:
    """Change a graph by these passes, in order."""
    for _ in _applied(graph, names):
        pass


def apply_counted(graph: Graph, names: Sequence[str]) -> tuple[Done, ...]:
    """The same, and return what each did."""
    done = []
    before = graph.cost()
    for name, sites in _applied(graph, names):
        after = graph.cost()
        done.append(Done(name=name, places=tuple(sites.places), left=tuple(sites.left), saved=before - after))
        before = after
    return tuple(done)


def _applied(graph: Graph, names: Sequence[str]) -> Iterator[tuple[str, Sites]]:
    for name in names:
        sites = Sites()
        with torch.no_grad():
            PASSES[name](graph, sites)
        graph.tidy()
        yield name, sites
