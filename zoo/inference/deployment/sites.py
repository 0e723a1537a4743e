"""Record where a pass (a rewrite of a model's graph) applies, and where it does not apply."""

from __future__ import annotations

from torch import fx

from zoo.inference.deployment.graph import place_of

__all__ = ["Sites"]


class Sites:
    """The places where a pass found its pattern.

    Attributes:
        places: the names of the submodules where the pass applied.
        skipped: the names of the submodules where the pass did not apply, each with the reason.
    """

    def __init__(self) -> None:
        self.places: list[str] = []
        self.skipped: list[tuple[str, str]] = []

    def apply(self, node: fx.Node) -> None:
        """Record that the pass applied at a node."""
        self.places.append(place_of(node))

    def skip(self, node: fx.Node, reason: str) -> None:
        """Record that the pass did not apply at a node, and the reason."""
        self.skipped.append((place_of(node), reason))
