"""Find the pairings that may meet the limits of a search, and estimate what each costs."""

from __future__ import annotations

import math
import operator
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from zoo.benchmark.measuring.failures import format_error
from zoo.benchmark.operation import total_flops
from zoo.benchmark.running.progress import Watcher
from zoo.errors import NegotiationError, PluginError, ZooError
from zoo.pairing.pairing import Pairing
from zoo.registry.licenses import licenses_of
from zoo.registry.registry import Entry, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec
from zoo.search.calibration import family_of
from zoo.search.cost_model import CostModel, Interval, Prediction
from zoo.search.counting.counter import PairingCounter, PairingParts
from zoo.search.counting.missing import count_missing
from zoo.search.counting.part import Part, peak_bytes
from zoo.search.ranking import spread
from zoo.search.request import SearchRequest, find_entries, is_allowed

__all__ = ["NO_TIME", "Candidate", "CandidateFinder", "Considered", "Weights", "find_weights"]

SEED = 0
"""The seed of the order of the encoders, if there is no prior."""
ENCODERS_SHARE = 0.6
"""The share of the time for counting in which encoders are counted. What follows them is counted in the rest of the time."""
NO_TIME = "there was no time to count them"
"""The reason of the pairings that were not considered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pairing that may meet the limits.

    Attributes:
        pairing: the pairing.
        latency: the estimated seconds of a call.
        is_guessed: whether the latency is a rough guess, since the pairing is unlike all that the calibration timed.
        peak_bytes: the peak size of all live tensors.
        parameters: the number of parameters.
        flops: the FLOPs for one image.
        score: what ranks the candidates that meet the limits: the prior score or, without a prior, the FLOPs.
    """

    pairing: Pairing
    latency: Interval
    is_guessed: bool
    peak_bytes: int
    parameters: int
    flops: int
    score: float

    @property
    def family(self) -> str:
        """The family of the encoder."""
        return family_of(self.pairing.encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """The pairings that a search considered.

    Attributes:
        total: the number of pairings of the encoders and decoders.
        candidates: those that may meet the limits.
        dropped: a mapping from each reason to the number of pairings that were dropped for it.
        nearest: for each limit that dropped pairings, the smallest value among all pairings that were counted, and its pairing.
        uncountable: the first pairing that cannot be counted, with the error; "" if there is none.
    """

    total: int
    candidates: tuple[Candidate, ...]
    dropped: Mapping[str, int]
    nearest: Mapping[str, tuple[float, Pairing]]
    uncountable: str

    @property
    def uncounted(self) -> int:
        """The number of pairings that there was no time to count."""
        return self.dropped.get(NO_TIME, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartCost:
    """The count of a part, and what follows from its operations."""

    part: Part
    prediction: Prediction
    flops: int


class _Sum:
    """What several parts of a model cost together."""

    def __init__(self, costs: Sequence[_PartCost], model: CostModel) -> None:
        self.prediction = reduce(operator.add, (cost.prediction for cost in costs))
        self.latency = model.interval(self.prediction)
        self.flops = sum(cost.flops for cost in costs)
        self.parameters = sum(cost.part.parameters for cost in costs)
        self.peak_bytes = peak_bytes([cost.part for cost in costs])


def _order_encoders(ids: Sequence[str], request: SearchRequest) -> list[Entry[EncoderSpec]]:
    """Return the encoders in the order in which they are counted."""
    entries = [default_registry().encoder(id) for id in ids]
    random.Random(SEED).shuffle(entries)
    if request.prior:
        entries.sort(key=lambda entry: -request.score(entry.id, 0.0))
    else:
        entries = spread(entries, lambda entry: family_of(entry.id))
    return sorted(entries, key=lambda entry: (entry.find_local_weights() is None, not entry.spec.weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The name of the weights that an encoder is trained from, or the reason why there are none."""

    name: str | None = None
    reason: str = ""


def find_weights(encoder: Entry[EncoderSpec], request: SearchRequest) -> Weights:
    """Return the weights that a search trains an encoder from."""
    if request.quality is None or request.weights == "random":
        return Weights()
    local = encoder.find_local_weights()
    if local or (request.weights == "download" and encoder.spec.weights):
        return Weights(name=local or encoder.spec.weights[0])
    if not encoder.spec.weights:
        return Weights(reason="their encoders have no pretrained weights")
    return Weights(reason="their pretrained weights are not on this machine (--weights download or random admits them)")


class CandidateFinder:
    """Finds the pairings that may meet the limits of a search.

    Every pairing is counted and estimated. If the encoder alone exceeds a limit, what follows it is not counted. The order
    matters if the time does not suffice: an encoder is first counted for the maps that most decoders take. First come the
    encoders whose pretrained weights are on this machine, then those that have pretrained weights at all, and then the others.
    Within each of these, they are in the order of their prior scores or, without a prior, few of each family at a time.

    Args:
        request: what the search looks for.
        model: the cost model of the device.
        counter: counts the operations of pairings.
        watcher: shows the progress.

    Raises:
        UnknownIdError: no encoder or no decoder matches a pattern.
    """

    def __init__(self, request: SearchRequest, model: CostModel, counter: PairingCounter, watcher: Watcher) -> None:
        self._request = request
        self._model = model
        self._counter = counter
        self._watcher = watcher
        self._costs: dict[str, _PartCost] = {}
        self._dropped = Counter[str]()
        self._nearest: dict[str, tuple[float, Pairing]] = {}
        self._uncountable = ""
        encoders = _order_encoders(find_entries("encoder", request.encoders), request)
        decoders = [default_registry().decoder(id) for id in find_entries("decoder", request.decoders)]
        self._total = len(encoders) * len(decoders)
        self._pairs: list[PairingParts] = []
        watcher.begin(len(encoders))
        for encoder in encoders:
            weights = find_weights(encoder, request)
            self._pairs += [pair for decoder in decoders if (pair := self._open(encoder, decoder, weights))]
            watcher.advance(f"making plans for {encoder.id}")
        self._dropped_unopened = Counter(self._dropped)

    def find(self, deadline: float = math.inf) -> Considered:
        """Return the pairings that may meet the limits. A later call goes on with those for which there was no time.

        Args:
            deadline: the time (`time.monotonic`) after which nothing further is counted.
        """
        self._dropped, self._nearest, self._uncountable = Counter(self._dropped_unopened), {}, ""
        plugins = self._request.plugins
        middle = time.monotonic() + ENCODERS_SHARE * (deadline - time.monotonic())
        count_missing(self._pairs, "encoder", self._counter, self._watcher, deadline=middle, plugins=plugins)
        pairs = [pair for pair in self._pairs if self._may_fit(pair)]
        count_missing(pairs, "rest", self._counter, self._watcher, deadline=deadline, plugins=plugins)
        candidates = [candidate for pair in pairs if (candidate := self._finish(pair))]
        return Considered(
            total=self._total,
            candidates=tuple(candidates),
            dropped=dict(self._dropped),
            nearest=self._nearest,
            uncountable=self._uncountable,
        )

    def _open(self, encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], weights: Weights) -> PairingParts | None:
        """Return a pairing whose parts can be counted; None if it is dropped before."""
        reason, request = "", self._request
        licenses = licenses_of(encoder, decoder, weights.name)
        if weights.reason:
            reason = weights.reason
        elif not is_allowed(licenses, request.license, has_weights=weights.name is not None):
            reason = f"their licenses are not {request.license}"
        elif request.prior and request.prior_of(encoder.id) is None:
            reason = "their encoders have no prior score"
        else:
            pairing = Pairing(
                encoder.id, decoder.id, classes=request.classes, in_channels=request.in_channels, weights=weights.name
            )
            try:
                return self._counter.parts(pairing, height=request.height, width=request.width, batch=request.batch)
            except NegotiationError:
                reason = "the decoder cannot take the encoder's maps"
            except ZooError:
                reason = "they cannot be built"
        self._dropped[reason] += 1
        return None

    def _may_fit(self, pair: PairingParts) -> bool:
        """Return whether the encoder alone meets the limits. Otherwise, the pair is dropped."""
        if reason := self._find_problem(pair, pair.encoder_key):
            self._dropped[reason] += 1
            return False
        return not self._is_exceeding(pair.pairing, _Sum([self._cost(pair.encoder)], self._model))

    def _finish(self, pair: PairingParts) -> Candidate | None:
        """Return the candidate if the whole pairing may meet the limits. Otherwise, the pair is dropped."""
        request = self._request
        if reason := self._find_problem(pair, pair.rest_key):
            self._dropped[reason] += 1
            return None
        costs = _Sum([self._cost(pair.encoder), self._cost(pair.rest)], self._model)
        if self._is_exceeding(pair.pairing, costs):
            return None
        return Candidate(
            pairing=pair.pairing,
            latency=costs.latency,
            is_guessed=bool(costs.prediction.difference),
            peak_bytes=costs.peak_bytes,
            parameters=costs.parameters,
            flops=costs.flops // request.batch,
            score=request.score(pair.pairing.encoder, costs.flops // request.batch),
        )

    def _find_problem(self, pair: PairingParts, key: str) -> str:
        """Return why the count of a part is missing; "" if it is there."""
        if not self._counter.is_counted(key):
            return NO_TIME
        if error := self._counter.error_of(key):
            text = str(error) if isinstance(error, PluginError) else format_error(error)
            first_line = text.partition("\n")[0]
            self._uncountable = self._uncountable or f"{pair.pairing}: {first_line}"
            return "they cannot be counted on the meta device"
        return ""

    def _cost(self, part: Part) -> _PartCost:
        """Return the cost of a part. Each part is estimated once."""
        if part.key not in self._costs:
            prediction = self._model.predict(part.operations)
            self._costs[part.key] = _PartCost(part=part, prediction=prediction, flops=total_flops(part.operations))
        return self._costs[part.key]

    def _is_exceeding(self, pairing: Pairing, costs: _Sum) -> bool:
        """Return whether a pairing exceeds a limit. If so, it is dropped, and its value may be the nearest to the limit."""
        values = {
            "max_latency": costs.latency.low,
            "max_memory": costs.peak_bytes,
            "max_parameters": costs.parameters,
            "max_flops": costs.flops / self._request.batch,
        }
        for limit, value in values.items():
            if value > self._request.bound(limit):
                self._nearest[limit] = min(
                    self._nearest.get(limit, (math.inf, pairing)), (value, pairing), key=lambda each: each[0]
                )
                self._dropped[f"they exceed --{limit.replace('_', '-')}"] += 1
                return True
        return False
