"""The result of checking whether one encoder works with one decoder. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from zoo.pairing.plan import Adapter

__all__ = ["CLASSES", "Cell", "Outcome"]

CLASSES = 3
"""The number of classes of the models: more than one, to check that a decoder with its own head returns all classes."""
KIND_WORDS = {"synthesize": "pyramid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The result of building and running a model of one encoder and one decoder.

    Attributes:
        encoder: the encoder's id.
        decoder: the decoder's id.
        maps: the names of the encoder's maps that the decoder uses, fine to coarse.
        adapters: the adapters that the plan inserts, level by level.
        adapter_parameters: the number of parameters of all adapters, counted in the built model.
        parameters: the number of parameters of the whole model, for `CLASSES` classes.
        image_size: (H, W) of the image that the model was run on.
        error: the class and message of the exception if the model could not be built or run; None otherwise.
    """

    encoder: str
    decoder: str
    maps: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    adapter_parameters: int | None = None
    parameters: int | None = None
    image_size: tuple[int, int] | None = None
    error: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the pairing builds and runs."""
        return self.error is None

    @property
    def error_class(self) -> str | None:
        """The name of the exception's class; None if there is no error."""
        return None if self.error is None else self.error.partition(":")[0]

    @property
    def reason(self) -> str | None:
        """The first line of the error, followed by the problems that a `NegotiationError` lists; None if there is no error."""
        if self.error is None:
            return None
        first, *others = map(str.strip, self.error.splitlines())
        return " ".join([first, *(line for line in others if line.startswith("Problem:"))])

    @property
    def inserted(self) -> str:
        """The number of adapters of each kind, such as "project x2, pyramid x4"."""
        counts = Counter(KIND_WORDS.get(adapter.kind, adapter.kind) for adapter in self.adapters)
        return ", ".join(f"{kind} x{count}" for kind, count in counts.items())

    def __str__(self) -> str:
        if not self.is_ok:
            return f"no: {self.error_class}"
        return f"ok +{_format_count(self.adapter_parameters or 0)} ({self.inserted})" if self.adapters else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain data, which `json` can write."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Return the cell from the plain data that `as_dict` returned.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is missing, unknown or of the wrong type.
        """
        size = facts["image_size"]
        converted = {
            "maps": tuple(facts["maps"]),
            "adapters": tuple(Adapter(**adapter) for adapter in facts["adapters"]),
            "image_size": None if size is None else tuple(size),
        }
        return cls(**{**facts, **converted})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A cell, and whether it may be cached (`is_lasting`): whether the same ids and versions always result in the same cell."""

    cell: Cell
    is_lasting: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain data, which `json` can write."""
        return {"cell": self.cell.as_dict(), "is_lasting": self.is_lasting}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Return the outcome from the plain data that `as_dict` returned."""
        return cls(cell=Cell.from_dict(facts["cell"]), is_lasting=facts["is_lasting"])


def _format_count(count: int) -> str:
    """Return a count in short form, such as 950, 12.3k or 5.6M."""
    for scale, unit in ((1, ""), (1e3, "k"), (1e6, "M")):
        if count < 999.5 * scale:
            return f"{count / scale:.3g}{unit}"
    return f"{count / 1e9:.3g}B"
