"""Estimate how long a model takes from its operations, by a model that is fitted to measured times. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from zoo.benchmark.operation import Operation, OperationTimes

__all__ = ["CostModel", "Interval", "fit_cost_model"]

CONFIDENCE = 0.9
MIN_MODELS = 20
"""The smallest number of timed models. With fewer, the largest of their errors is not the end of a 90 % interval."""
FOLDS = 10

NEIGHBORS = 10
"""How many timed operations correct the estimate of an operation of the same kind."""
SOFTNESS, DOUBT = 0.1, 0.1
"""The weight of a timed operation at the distance d is 1 / (d + SOFTNESS)**2. The weight DOUBT is added for 'no correction'."""
SHRINKAGE = 20.0
"""How strongly the factor of each kind of operation is drawn to 1: as by the square of this number of models."""

FAMILIARITY, MOST_DISTANCE = 0.2, 3.0
"""The width of an interval is proportional to FAMILIARITY plus the mean distance of the operations to the most similar timed
ones. The mean is weighted by the operations' times. Distances above MOST_DISTANCE count as MOST_DISTANCE."""

FAR = 1.5
"""The distance from which on an operation is unlike all timed ones: for example, it has 4.5 times as many bytes."""
MOST_UNLIKE = 0.2
"""The largest share of unlike operations in the time of a model that has an estimate."""

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimated time in seconds, and the interval that contains the true time with a probability of 90 %."""

    seconds: float
    low: float
    high: float


class CostModel:
    """Estimates the time of a model's call as the sum of the times of its operations.

    The time of an operation is estimated in two steps. First, as a sum: so many seconds for each FLOP, each byte and each call
    of its kind. Second, this sum is corrected by the timed operations of the same kind that are most like it in FLOPs, bytes,
    width, positions and memory layout. The estimates of each kind are then multiplied by a factor, since operations take less
    or more time in a model than when each is timed by itself.

    Attributes:
        errors: for each timed model, its time divided by the estimate of a cost model that was fitted without it.
        intervals: for each timed model, the ends of its 90 % interval, divided by this estimate.
    """

    def __init__(self, times: Sequence[OperationTimes], errors: Sequence[float] = (), distances: Sequence[float] = ()) -> None:
        self.errors = tuple(errors)
        self._low, self._high = _ends(self.errors, distances) if errors else (math.nan, math.nan)
        self.intervals = tuple(map(self._interval, distances))
        timed = [each for time in times for each in time.operations]
        self._kinds = {
            kind: _Kind([(each.operation, each.seconds) for each in timed if each.operation.kind == kind])
            for kind in sorted({each.operation.kind for each in timed})
        }
        self._factors = dict.fromkeys([*self._kinds, CALLS], 1.0)
        by_kind = [self._by_kind(time.calls, self._parts(time.calls)) for time in times]
        self._factors = _fit_factors(by_kind, [time.seconds for time in times])

    def estimate(self, operations: Mapping[Operation, int]) -> Interval:
        """Return the estimated time of a call. `operations` is a mapping from each operation to the number of its calls."""
        parts = self._parts(operations)
        seconds = sum(self._by_kind(operations, parts).values())
        low, high = self._interval(_distance(parts))
        return Interval(seconds=seconds, low=low * seconds, high=high * seconds)

    def distance(self, operations: Mapping[Operation, int]) -> float:
        """Return the mean distance of the operations to the most similar timed ones, weighted by their times."""
        return _distance(self._parts(operations))

    def difference(self, operations: Mapping[Operation, int]) -> str:
        """Return how a model differs from all timed ones, so that its estimate may be far off; "" if it does not."""
        parts = self._parts(operations)
        for operation in operations:
            if operation.kind not in parts:
                return f"no timed model has operations of the kind {operation.kind!r}"
        unlike = {kind: float(part.seconds[part.distances > FAR].sum()) * self._factors[kind] for kind, part in parts.items()}
        share = sum(unlike.values()) / sum(self._by_kind(operations, parts).values())
        if share > MOST_UNLIKE:
            kinds = sorted((kind for kind in unlike if unlike[kind]), key=lambda kind: -unlike[kind])
            return f"operations unlike all timed ones take {share:.0%} of its time ({', '.join(kinds[:3])})"
        return ""

    def _interval(self, distance: float) -> tuple[float, float]:
        """Return the ends of the interval of a model at this distance, divided by its estimate."""
        scale = FAMILIARITY + distance
        return math.exp(self._low * scale), math.exp(self._high * scale)

    def _parts(self, operations: Mapping[Operation, int]) -> dict[str, _Part]:
        """Return the operations of each timed kind, with their estimated times."""
        by_kind: dict[str, list[Operation]] = {}
        for operation in operations:
            by_kind.setdefault(operation.kind, []).append(operation)
        parts = {}
        for kind, members in by_kind.items():
            if kind in self._kinds:
                estimates, distances = self._kinds[kind].estimate(members)
                calls = np.array([operations[operation] for operation in members])
                parts[kind] = _Part(seconds=estimates * calls, distances=distances)
        return parts

    def _by_kind(self, operations: Mapping[Operation, int], parts: Mapping[str, _Part]) -> dict[str, float]:
        """Return the estimated seconds of all calls of each kind of operation, and of the time between the calls."""
        between = SECONDS_BETWEEN_CALLS * sum(operations.values()) * self._factors[CALLS]
        return {CALLS: between} | {kind: float(part.seconds.sum()) * self._factors[kind] for kind, part in parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The operations of one kind in a model.

    Attributes:
        seconds: the estimated seconds of all calls of each operation, before they are multiplied by the factor of the kind.
        distances: the distance of each operation to the most similar timed one.
    """

    seconds: Floats
    distances: Floats


def _distance(parts: Mapping[str, _Part]) -> float:
    total = sum(float(part.seconds.sum()) for part in parts.values())
    weighted = sum(float(part.seconds @ np.minimum(part.distances, MOST_DISTANCE)) for part in parts.values())
    return weighted / total if total else MOST_DISTANCE


CALLS = "between calls"
SECONDS_BETWEEN_CALLS = 1e-6


class _Kind:
    """The timed operations of one kind, and the estimate of other operations that follows from them."""

    def __init__(self, timed: Sequence[tuple[Operation, float]]) -> None:
        operations, seconds = [operation for operation, _ in timed], np.array([each for _, each in timed])
        floor = np.maximum(seconds, 5e-6)  # the clock's error matters less than that of long operations
        amounts = _amounts(operations) / floor[:, None]
        scale = amounts.max(axis=0)
        scale[scale == 0] = 1.0
        self._coefficients: Floats = nnls(amounts / scale, seconds / floor)[0] / scale
        self._tree = cKDTree(_coordinates(operations))
        self._corrections = np.log(np.maximum(seconds, 1e-7) / self._sums(operations))

    def estimate(self, operations: Sequence[Operation]) -> tuple[Floats, Floats]:
        """Return the estimated seconds of each operation, and its distance to the most similar timed one."""
        count = min(NEIGHBORS, self._tree.n)
        found = self._tree.query(_coordinates(operations), [*range(1, count + 1)])
        distances, nearest = np.asarray(found[0]), np.asarray(found[1])
        weights = 1 / (distances + SOFTNESS) ** 2
        correction = (weights * self._corrections[nearest]).sum(axis=1) / (weights.sum(axis=1) + DOUBT)
        return self._sums(operations) * np.exp(correction), distances[:, 0]

    def _sums(self, operations: Sequence[Operation]) -> Floats:
        return np.maximum(_amounts(operations) @ self._coefficients, 1e-7)


def _amounts(operations: Sequence[Operation]) -> Floats:
    """Return the FLOPs, bytes and calls of each operation."""
    return np.array([(operation.flops, operation.bytes, 1.0) for operation in operations])


def _coordinates(operations: Sequence[Operation]) -> Floats:
    """Return a point for each operation. Operations whose points are close take about the same time for each FLOP and byte."""
    sizes = np.array(
        [(operation.flops + 1e3, operation.bytes + 1e2, operation.width, operation.positions) for operation in operations],
        dtype=float,
    )
    strided = np.array([operation.is_strided for operation in operations], dtype=float)
    return np.column_stack([np.log(np.maximum(sizes, 1.0)) * (1.0, 1.0, 0.7, 0.7), strided])


def _fit_factors(parts: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Return the factor of each kind with which the parts of each model add up best to its measured seconds.

    The factors minimize the squared relative errors, plus a penalty for their distance from 1. No factor is negative.
    """
    names = sorted({name for part in parts for name in part})
    amounts = np.array([[part.get(name, 0.0) / total for name in names] for part, total in zip(parts, seconds, strict=True)])
    penalty = SHRINKAGE * amounts.mean(axis=0)
    factors, _ = nnls(np.vstack([amounts, np.diag(penalty)]), np.concatenate([np.ones(len(parts)), penalty]))
    return dict(zip(names, map(float, factors), strict=True))


def fit_cost_model(times: Sequence[OperationTimes]) -> CostModel:
    """Fit a cost model to the times of several models.

    The intervals come from the errors that cost models make for models that they were not fitted to, by cross-validation. An
    error is the logarithm of the time divided by the estimate, in units of the model's distance to the timed ones: normalized
    split conformal prediction (Lei et al. 2018, arXiv:1604.04173, section 5.2; Barber et al. 2021, arXiv:1905.02928).

    Raises:
        ValueError: there are fewer than `MIN_MODELS` models.
    """
    if len(times) < MIN_MODELS:
        raise ValueError(f"a cost model requires the times of at least {MIN_MODELS} models; found {len(times)}")
    errors, distances = [0.0] * len(times), [0.0] * len(times)
    for fold in range(FOLDS):
        model = CostModel([each for index, each in enumerate(times) if index % FOLDS != fold])
        for index in range(fold, len(times), FOLDS):
            operations = times[index].calls
            errors[index] = times[index].seconds / model.estimate(operations).seconds
            distances[index] = model.distance(operations)
    return CostModel(times, errors, distances)


def _ends(errors: Sequence[float], distances: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the interval in units of a model's distance to the timed ones.

    They are the order statistics that the normalized error of a new model exceeds with a probability of at most 5 %. The
    interval always contains the estimate.
    """
    ordered = sorted(math.log(error) / (FAMILIARITY + distance) for error, distance in zip(errors, distances, strict=True))
    outside = max(1, math.floor((len(ordered) + 1) * (1 - CONFIDENCE) / 2))
    return min(0.0, ordered[outside - 1]), max(0.0, ordered[-outside])
