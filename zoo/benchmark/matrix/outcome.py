"""What the check of one pairing gave, and whether it will give the same again. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from zoo.benchmark.matrix.cells import Cell

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A cell, and whether the same ids in the same versions will give the same one again."""

    cell: Cell
    is_lasting: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"cell": self.cell.as_dict(), "is_lasting": self.is_lasting}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Return the outcome that `as_dict` made plain."""
        return cls(cell=Cell.from_dict(facts["cell"]), is_lasting=facts["is_lasting"])
