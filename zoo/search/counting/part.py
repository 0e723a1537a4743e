"""What a pairing and its parts cost, as counted. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, TypeAlias

from zoo.benchmark.operation import Operation, total_flops

__all__ = ["PairingCost", "Part", "Shape", "peak_bytes"]

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingCost:
    """What a call of a model in inference costs, as counted.

    Attributes:
        operations: a mapping from each operation to the number of its calls.
        parameters: the number of parameters.
        peak_bytes: the peak size of all live tensors: weights, image and activations.
    """

    operations: Mapping[Operation, int]
    parameters: int
    peak_bytes: int

    @property
    def flops(self) -> int:
        """The FLOPs of the call."""
        return total_flops(self.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part of a model costs: the encoder, or all that follows it.

    Attributes:
        key: everything that the count depends on, as text.
        operations: a mapping from each operation to the number of its calls.
        parameters: the number of parameters.
        weight_bytes: the size of the parameters and buffers, and of tensors that the modules keep after a call.
        active_bytes: the peak size of all other tensors.
        shapes: the shapes of the maps that the encoder returns.
        channels_last: for each of these maps, whether it is in the memory format "channels_last".
    """

    key: str = ""
    operations: Mapping[Operation, int]
    parameters: int
    weight_bytes: int
    active_bytes: int
    shapes: tuple[Shape, ...] = ()
    channels_last: tuple[bool, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the part without its key as a JSON-serializable dictionary."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "key"}
        return facts | {"operations": [[*astuple(operation), calls] for operation, calls in self.operations.items()]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Part:
        """Return the part that `as_dict` converted to a dictionary."""
        names = [field.name for field in fields(Operation)]
        operations = {Operation(**dict(zip(names, each, strict=True))): calls for *each, calls in facts["operations"]}
        shapes = tuple(map(tuple, facts["shapes"]))
        return cls(**{**facts, "operations": operations, "shapes": shapes, "channels_last": tuple(facts["channels_last"])})


def peak_bytes(parts: Sequence[Part]) -> int:
    """Return the peak size of all live tensors of a model that consists of these parts."""
    return sum(part.weight_bytes for part in parts) + max(part.active_bytes for part in parts)
