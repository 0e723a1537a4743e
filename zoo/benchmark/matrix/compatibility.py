"""The class of the compatibility matrix, which shows which encoders work with which decoders. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.benchmark.matrix.cells import Cell
from zoo.benchmark.matrix.document import decoders_of, document, encoders_of
from zoo.common.grid import Document

__all__ = ["CompatibilityMatrix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibilityMatrix:
    """The cells of all pairings, encoder by encoder. `str()` returns the matrix as text.

    Attributes:
        cells: one cell for each pairing.
        versions: a mapping from the names of distributions to their versions; "-" for a distribution that is not installed.
    """

    cells: tuple[Cell, ...]
    versions: Mapping[str, str]

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders' ids, in the order of the rows."""
        return encoders_of(self.cells)

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders' ids, in the order of the columns."""
        return decoders_of(self.cells)

    @property
    def document(self) -> Document:
        """The document that `zoo matrix` prints for this matrix."""
        return document(self.cells, self.versions)

    def __str__(self) -> str:
        return str(self.document)
