"""The operations of a model, and their measured times. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import FiniteFloat

__all__ = ["Operation", "OperationTime", "OperationTimes", "total_flops"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A kind of computation and its size. Two operations with equal attributes take about the same time.

    Attributes:
        kind: the kind of operation, such as "convolution 1x1" or "norm". A "view" moves no data.
        flops: the FLOPs of a convolution, a matrix product or attention; 0 for other operations. A multiply-add counts as two.
        bytes: the sizes of all tensors that the operation reads or writes.
        width: for a convolution, the smaller of the first two dimensions of its weight. For other operations, the last
            dimension of the result.
        positions: for a convolution, the number of output pixels in the batch. For other operations, the product of the
            result's other dimensions.
        is_strided: whether a tensor that the operation reads is not contiguous in memory.
    """

    kind: str
    flops: int = 0
    bytes: int = 0
    width: int = 1
    positions: int = 1
    is_strided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTime:
    """How often a model calls an operation, and the median wall-clock time of these calls in seconds."""

    operation: Operation
    calls: int
    seconds: FiniteFloat

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> OperationTime:
        """Return the time that `dataclasses.asdict` converted to a dictionary."""
        return cls(**{**facts, "operation": Operation(**facts["operation"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTimes:
    """The times of a trial's operations, and of its whole step.

    Attributes:
        trial: the trial's key.
        seconds: the median wall-clock time of a step. While it was measured, the operations were not timed.
        operations: the operations of a step.
    """

    trial: str
    seconds: FiniteFloat
    operations: tuple[OperationTime, ...]

    @property
    def calls(self) -> dict[Operation, int]:
        """A mapping from each operation to the number of its calls in a step."""
        return {each.operation: each.calls for each in self.operations}


def total_flops(operations: Mapping[Operation, int]) -> int:
    """Return the FLOPs of all operations. `operations` is a mapping from each operation to the number of its calls."""
    return sum(calls * operation.flops for operation, calls in operations.items())
