"""Where a pass applied, and where it did not."""

from __future__ import annotations

from torch import fx

from zoo.inference.deployment.graph import place_of

__all__ = ["Sites"]


class Sites:
    """The places that a pass has seen.

    Attributes:
        places: names of the submodules where it applied.
        left: names of those where it might have, and why it did not.
    """

    def __init__(self) -> None:
        self.places: list[str] = []
        self.left: list[tuple[str, str]] = []

    def apply(self, node: fx.Node) -> None:
        """Note that the pass applied at a node."""
        self.places.append(place_of(node))

    def leave(self, node: fx.Node, why: str) -> None:
        """Note that it did not, and why."""
        self.left.append((place_of(node), why))
