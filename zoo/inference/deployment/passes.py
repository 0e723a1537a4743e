"""Apply passes to a graph. A pass rewrites the graph without changing its output beyond rounding."""

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

__all__ = ["PASSES", "PassResult", "apply_and_measure", "apply_passes", "check_passes"]

PASSES: dict[str, Callable[[Graph, Sites], None]] = {
    "drop-identities": drop_identities,
    "fold-constants": fold_constants,
    "fold-norms": fold_norms,
    "merge-transposed": merge_transposed,
    "low-resolution": convolve_at_low_resolution,
    "project-before-resize": project_before_resize,
}
"""The passes, in the order in which they are applied. The docstring of each function describes its change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """Where a pass applied, and what it saved.

    Attributes:
        name: the name of the pass.
        places: the names of the submodules where the pass applied.
        skipped: the names of the submodules where the pass found its pattern but did not apply, each with the reason.
        saved: the cost of a call before the pass minus the cost after it.
    """

    name: str
    places: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    saved: Cost


def check_passes(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the passes in the order in which they are applied. None stands for all passes.

    Raises:
        OptionError: a name is unknown, or `names` is a single text.
    """
    if names is None:
        return tuple(PASSES)
    unknown = [name for name in names if name not in PASSES]
    if isinstance(names, str) or unknown:
        raise OptionError(f"passes must be a list of names from {', '.join(map(repr, PASSES))}; found {names!r}.")
    return tuple(name for name in PASSES if name in names)


def apply_passes(graph: Graph, names: Sequence[str]) -> None:
    """Apply these passes to a graph, in order."""
    for _ in _apply_each(graph, names):
        pass


def apply_and_measure(graph: Graph, names: Sequence[str]) -> tuple[PassResult, ...]:
    """Apply these passes to a graph, in order, and return the result of each pass."""
    results = []
    before = graph.cost()
    for name, sites in _apply_each(graph, names):
        after = graph.cost()
        results.append(PassResult(name=name, places=tuple(sites.places), skipped=tuple(sites.skipped), saved=before - after))
        before = after
    return tuple(results)


def _apply_each(graph: Graph, names: Sequence[str]) -> Iterator[tuple[str, Sites]]:
    for name in names:
        sites = Sites()
        with torch.no_grad():
            PASSES[name](graph, sites)
        graph.tidy()
        yield name, sites
