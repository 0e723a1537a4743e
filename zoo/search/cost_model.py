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

__all__ = ["CostModel", "Interval", "Prediction", "fit_cost_model"]

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

FAMILIARITY, MOST_DISTANCE = 1.0, 3.0
"""The width of an interval is proportional to FAMILIARITY plus the mean distance of the operations to the most similar timed
ones. The mean is weighted by the operations' times. Distances above MOST_DISTANCE count as MOST_DISTANCE."""

FAR = 1.5
"""The distance from which on an operation is unlike all timed ones: for example, it has 4.5 times as many bytes."""
LARGE = 64 * 2**20
"""Beyond this number of bytes, an operation no longer profits from caches, and takes time in proportion to its size. So larger
operations are as similar to one another as if all had this many bytes."""
SMALL_FLOPS, SMALL_BYTES, SMALL_POSITIONS = 1e6, 1e5, 100
"""Operations below these sizes take about as long as an empty call, so that they are similar to one another."""
MOST_UNLIKE = 0.2
"""The largest share of unlike operations in the time of a model that has an estimate."""
UNLIKE_FACTOR = 3.0
"""How much wider the interval of a model with more unlike operations is, on either side."""

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimated time in seconds, and the interval that contains the true time with a probability of 90 %."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a cost model knows about the time of a model, or of a part of a model. The sum of the parts is that of the model.

    Attributes:
        seconds: the estimated seconds of a call.
        weight: the sum of the estimated seconds of the operations, before they are multiplied by the factors of their kinds.
        distance: the sum of the operations' distances to the most similar timed ones, weighted as in `weight`.
        unlike: a mapping from each kind to the estimated seconds of the operations that are unlike all timed ones.
        unknown: the kinds of operations that no timed model has.
    """

    seconds: float
    weight: float
    distance: float
    unlike: Mapping[str, float]
    unknown: frozenset[str]

    def __add__(self, other: Prediction) -> Prediction:
        return Prediction(
            seconds=self.seconds + other.seconds,
            weight=self.weight + other.weight,
            distance=self.distance + other.distance,
            unlike={
                kind: self.unlike.get(kind, 0.0) + other.unlike.get(kind, 0.0)
                for kind in self.unlike.keys() | other.unlike.keys()
            },
            unknown=self.unknown | other.unknown,
        )

    @property
    def mean_distance(self) -> float:
        """The mean distance of the operations to the most similar timed ones, weighted by their times."""
        return self.distance / self.weight if self.weight else MOST_DISTANCE

    @property
    def difference(self) -> str:
        """How the model differs from all timed ones, so that its estimate may be far off; "" if it does not."""
        if self.unknown:
            return f"no timed model has operations of the kind {min(self.unknown)!r}"
        unlike = sum(self.unlike.values())
        if unlike > MOST_UNLIKE * self.seconds:
            kinds = sorted(self.unlike, key=lambda kind: -self.unlike[kind])
            return f"operations unlike all timed ones take {unlike / self.seconds:.0%} of its time ({', '.join(kinds[:3])})"
        return ""


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
        self.intervals = tuple(map(self._ends_at, distances))
        timed = [each for time in times for each in time.operations]
        self._kinds = {
            kind: _Kind([(each.operation, each.seconds) for each in timed if each.operation.kind == kind])
            for kind in sorted({each.operation.kind for each in timed})
        }
        by_kind = [_Parts(self._kinds, time.calls).seconds for time in times]
        self._factors = _fit_factors(by_kind, [time.seconds for time in times])

    def predict(self, operations: Mapping[Operation, int]) -> Prediction:
        """Return what the cost model knows about the time of a model, or of a part of it.

        Args:
            operations: a mapping from each operation to the number of its calls.
        """
        parts = _Parts(self._kinds, operations)
        return Prediction(
            seconds=sum(seconds * self._factors[kind] for kind, seconds in parts.seconds.items()),
            weight=parts.weight,
            distance=parts.distance,
            unlike={kind: seconds * self._factors[kind] for kind, seconds in parts.unlike.items()},
            unknown=frozenset(parts.unknown),
        )

    def interval(self, prediction: Prediction) -> Interval:
        """Return the estimated time of a model, with its 90 % interval.

        The interval of a model that is unlike all timed ones is a rough guess.
        """
        low, high = self._ends_at(prediction.mean_distance)
        if prediction.difference:
            low, high = low / UNLIKE_FACTOR, high * UNLIKE_FACTOR
        return Interval(seconds=prediction.seconds, low=low * prediction.seconds, high=high * prediction.seconds)

    def _ends_at(self, distance: float) -> tuple[float, float]:
        """Return the ends of the interval of a model at this distance, divided by its estimate."""
        scale = FAMILIARITY + distance
        return math.exp(self._low * scale), math.exp(self._high * scale)


CALLS = "between calls"
SECONDS_BETWEEN_CALLS = 1e-6


class _Parts:
    """The estimated times of operations, by kind, before they are multiplied by the factors of the kinds.

    Attributes:
        seconds: a mapping from each kind, and from `CALLS`, to the estimated seconds of all calls.
        weight, distance, unlike, unknown: as in `Prediction`.
    """

    def __init__(self, kinds: Mapping[str, _Kind], operations: Mapping[Operation, int]) -> None:
        self.seconds = {CALLS: SECONDS_BETWEEN_CALLS * sum(operations.values())}
        self.weight = self.distance = 0.0
        self.unlike: dict[str, float] = {}
        by_kind: dict[str, list[Operation]] = {}
        for operation in operations:
            by_kind.setdefault(operation.kind, []).append(operation)
        self.unknown = by_kind.keys() - kinds.keys()
        for kind, members in by_kind.items():
            if kind not in kinds:
                continue
            estimates, distances = kinds[kind].estimate(members)
            seconds = estimates * [operations[operation] for operation in members]
            self.seconds[kind] = float(seconds.sum())
            self.weight += self.seconds[kind]
            self.distance += float(seconds @ np.minimum(distances, MOST_DISTANCE))
            if (distances > FAR).any():
                self.unlike[kind] = float(seconds[distances > FAR].sum())


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
    extents = np.array([(operation.flops, operation.bytes, operation.positions) for operation in operations], dtype=float)
    flops, size, positions = (extents / np.maximum(extents[:, 1:2] / LARGE, 1.0)).T
    width = np.array([operation.width for operation in operations], dtype=float)
    strided = np.array([operation.is_strided for operation in operations], dtype=float)
    sizes = [flops + SMALL_FLOPS, size + SMALL_BYTES, np.maximum(width, 1.0), np.maximum(positions, SMALL_POSITIONS)]
    logarithms = np.log(np.column_stack(sizes))
    return np.column_stack([logarithms * (1.0, 1.0, 0.7, 0.7), strided])


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
            prediction = model.predict(times[index].calls)
            errors[index] = times[index].seconds / prediction.seconds
            distances[index] = prediction.mean_distance
    return CostModel(times, errors, distances)


def _ends(errors: Sequence[float], distances: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the interval in units of a model's distance to the timed ones.

    They are the order statistics that the normalized error of a new model exceeds with a probability of at most 5 %. The
    interval always contains the estimate.
    """
    ordered = sorted(math.log(error) / (FAMILIARITY + distance) for error, distance in zip(errors, distances, strict=True))
    outside = max(1, math.floor((len(ordered) + 1) * (1 - CONFIDENCE) / 2))
    return min(0.0, ordered[outside - 1]), max(0.0, ordered[-outside])
