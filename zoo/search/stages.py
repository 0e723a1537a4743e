"""Decide what a search measures and trains: the most promising candidates, and by successive halving the best of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table, table_of
from zoo.errors import ZooError
from zoo.pairing.pairing import Pairing
from zoo.registry.registry import default_registry
from zoo.search.candidates import Candidate, find_weights
from zoo.search.explanations import explain_no_measurement, explain_rows
from zoo.search.ranking import Front, closeness, spread
from zoo.search.request import SearchRequest
from zoo.search.search_folder import SearchFolder, Stage
from zoo.search.stage_runner import FEWEST_TRAINED, StageRunner
from zoo.search.trainings import read_trainings

__all__ = ["Searcher"]

Ids = tuple[str, str]
"""The ids of an encoder and a decoder."""

MARGIN = 1.05
"""A candidate is measured only if it may be more than this many times as fast as all measured pairings with at least its
score."""
MOST_OF_A_FAMILY = 2
"""How many pairings of a family of encoders are measured in one stage."""
FINALISTS = 24
"""The largest number of pairings that are measured precisely."""

OVERHEAD_SECONDS, CALLS = 2.5, 30
"""How long a rough measurement of a pairing takes: a constant time and so many calls."""
LONGEST_SHARE = 0.05
"""The largest share of the whole time that the rough measurement of one pairing may take."""
STAGE_SECONDS = 60.0
"""How long a stage that measures candidates takes at least, if there are enough candidates and enough time."""

MEASURING_SHARE = 0.75
"""The share of the time after which no further candidates are measured roughly, in a search without data."""
MEASURING_SHARE_WITH_DATA = 0.15
"""The share of the time that is left after counting in which candidates are measured, in a search with data."""
FINAL_MEASURING_SHARE = 0.2
"""The share of the time left before the last training in which its candidates are measured precisely."""
REDUCTION = 3
"""One of so many candidates is trained further."""
MOST_TRAINED = 27
"""The largest number of candidates that are trained."""
SEEDS = 3
"""How many times the best candidates are trained to the end, if there is time."""


class Searcher:
    """Decides which candidates each stage of a search measures or trains.

    Args:
        request: what the search looks for.
        store: the results store.
        folder: the folder of the search.
        runner: runs the stages.
    """

    def __init__(self, request: SearchRequest, store: Store, folder: SearchFolder, runner: StageRunner) -> None:
        self._request = request
        self._store = store
        self._folder = folder
        self._runner = runner
        self._rough: tuple[tuple[int, ...], list[Row]] = ((), [])  # the rows of these runs, since reading them takes time

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Measure candidates roughly: the most promising ones or, with data, those to train."""
        if not self._request.quality:
            while batch := self._choose_batch(candidates):
                self._runner.begin("measure", [candidate.pairing for candidate in batch])
        elif not self._runner.last("measure"):
            chosen = self._choose_for_training(candidates)
            self._folder.state.considered["untried"] = len(candidates) - len(chosen)
            self._runner.begin("measure", [candidate.pairing for candidate in chosen])

    def finish(self, candidates: Sequence[Candidate]) -> None:
        """Train candidates, if there are data, and measure the best ones precisely.

        Raises:
            ZooError: no candidate could be measured or trained.
        """
        if self._request.quality:
            self._train(candidates)
        else:
            considered = self._folder.state.considered
            considered["promising"] = len(self._find_promising(candidates))
            considered["too_slow"] = sum(map(self._is_too_slow, candidates))
            self._measure_finalists(candidates)

    def final(self) -> Table | None:
        """Return the table of the last stage; None if the search is not there yet."""
        stage = self._runner.last("final")
        return table_of(self._store, stage.run) if stage and stage.run is not None else None

    # Measuring

    def _choose_batch(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates to measure next: those that are estimated to be closest to the front of time and score."""
        left = MEASURING_SHARE * self._runner.total - self._runner.elapsed
        seconds = min(left, max(STAGE_SECONDS, left / 4))
        batch: list[Candidate] = []
        families = Counter[str]()
        for candidate in self._rank(self._find_promising(candidates)):
            if families[candidate.family] < MOST_OF_A_FAMILY and seconds >= _rough_seconds(candidate):
                families[candidate.family] += 1
                seconds -= _rough_seconds(candidate)
                batch.append(candidate)
        return batch

    def _find_promising(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that are not measured, and that may be better than all measured ones by more than `MARGIN`.

        A candidate is better if it is faster than all measured pairings that meet the limits and have at least its score. Its
        time is taken from the lower end of its interval.
        """
        measured = {(row.encoder, row.decoder) for row in self.rough_rows()}
        front = Front(self._measured_points())
        return [
            candidate
            for candidate in candidates
            if _ids(candidate.pairing) not in measured
            and front.seconds_for(candidate.score) > MARGIN * candidate.latency.low
            and not self._is_too_slow(candidate)
        ]

    def _is_too_slow(self, candidate: Candidate) -> bool:
        """Return whether measuring a candidate would take too much of the time."""
        return _rough_seconds(candidate) > LONGEST_SHARE * self._runner.total

    def _rank(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates sorted by how close they are to the front of time and score, the closest first.

        The front consists of the candidates and of the measured pairings that meet the limits. A candidate that is estimated to
        be slower than the limit comes later.
        """
        limit = self._request.bound("max_latency")
        points = [(candidate.latency.seconds, candidate.score) for candidate in candidates]
        shares = closeness([*points, *self._measured_points()])[: len(points)]
        ranked = [share * min(1.0, limit / seconds) ** 2 for share, (seconds, _) in zip(shares, points, strict=True)]
        return [candidates[index] for index in sorted(range(len(candidates)), key=lambda index: -ranked[index])]

    def _measured_points(self) -> list[tuple[float, float]]:
        """Return the time and the score of each measured pairing that meets the limits."""
        score = self._request.score
        return [(row.latency.median, score(row.encoder, row.flops or 0)) for row in self._fitting_rows() if row.latency]

    def _measure_finalists(self, candidates: Sequence[Candidate]) -> None:
        """Measure the best of the roughly measured pairings precisely."""
        rows = self._fitting_rows()
        near = [row for row, share in zip(rows, closeness(self._measured_points()), strict=True) if share >= 1 / MARGIN]
        if not near:
            raise ZooError(self._explain_failure(candidates))
        chosen = _pick_evenly(sorted(near, key=lambda row: row.latency.median if row.latency else math.inf), FINALISTS)
        pairings = [Pairing(row.encoder, row.decoder, **self._options) for row in chosen]
        self._runner.begin("final", pairings, budget=self._seconds_for_a_group(len(pairings), share=1.0))

    def _seconds_for_a_group(self, pairings: int, *, share: float) -> float:
        """Return how long each group of so many pairings may be measured in a share of the time that is left."""
        groups: int = -(-pairings // BenchConfig.model_fields["group_size"].default)
        return max(1.0, share * (self._runner.total - self._runner.elapsed) / groups)

    def rough_rows(self) -> list[Row]:
        """Return the rows of all finished stages that measured candidates."""
        finished = [stage for stage in self._folder.state.stages if stage.kind == "measure" and stage.is_finished]
        runs = tuple(stage.run for stage in finished if stage.run is not None)
        if runs != self._rough[0]:
            rows: dict[Ids, Row] = {}
            for row in table_of(self._store, *runs).rows:
                rows.setdefault((row.encoder, row.decoder), row)
            self._rough = (runs, list(rows.values()))
        return self._rough[1]

    def _fitting_rows(self) -> list[Row]:
        """Return the measured rows that meet every limit."""
        limits = self._request.limits
        return [row for row in self.rough_rows() if row.latency and all(limit.meets(row) for limit in limits)]

    def _explain_failure(self, candidates: Sequence[Candidate]) -> str:
        if rows := self.rough_rows():
            return explain_rows(rows, self._request, self._store)
        needed = min(map(_rough_seconds, candidates), default=math.inf) / LONGEST_SHARE
        return explain_no_measurement(len(candidates), needed, self._request)

    # Training

    def _train(self, candidates: Sequence[Candidate]) -> None:
        """Train candidates by successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943).

        Many candidates are trained for few steps. The best third of them is trained further, and so on. The best are trained
        to the end. A candidate's training goes on where it stopped.
        """
        quality = self._request.quality
        assert quality is not None
        assert isinstance(quality.budget, int)
        rungs = [stage for stage in self._folder.state.stages if stage.kind == "train"]
        pairings = [self._pairing_to_train(row) for row in self._fitting_rows()]
        if not pairings:
            raise ZooError(self._explain_failure(candidates))
        steps = _rung_steps(len(pairings), quality.budget)
        for number, stop in enumerate(steps[:-1]):
            if number >= len(rungs):
                left = self._runner.total - self._runner.elapsed
                until = self._runner.elapsed + left / (len(steps) - number) if number == 0 else None
                self._runner.begin(
                    "train",
                    pairings,
                    quality=quality.model_copy(update={"seeds": 1, "first_seed": self._request.seed, "stop_after": stop}),
                    until=until,
                )
                rungs = [stage for stage in self._folder.state.stages if stage.kind == "train"]
            pairings = self._best_of(rungs[number])
        if not self._runner.last("final"):
            final = quality.model_copy(update={"seeds": SEEDS, "first_seed": self._request.seed, "stop_after": quality.budget})
            budget = self._seconds_for_a_group(len(pairings), share=FINAL_MEASURING_SHARE)
            self._runner.begin("final", pairings, quality=final, until=self._runner.total, budget=budget)

    def _choose_for_training(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates to train: those closest to the front of time and score, of as many families as possible."""
        left = MEASURING_SHARE_WITH_DATA * (self._runner.total - self._runner.elapsed)
        chosen: list[Candidate] = []
        for candidate in spread(self._rank(candidates), lambda each: each.family):
            if len(chosen) < MOST_TRAINED and (left >= _rough_seconds(candidate) or len(chosen) < FEWEST_TRAINED):
                left -= _rough_seconds(candidate)
                chosen.append(candidate)
        return chosen

    def _pairing_to_train(self, row: Row) -> Pairing:
        """Return the pairing of a measured row, with the weights that it is trained from."""
        weights = find_weights(default_registry().encoder(row.encoder), self._request)
        return Pairing(row.encoder, row.decoder, **self._options, weights=weights.name)

    def _best_of(self, stage: Stage) -> list[Pairing]:
        """Return the best third of the candidates of a stage, by their mIoU on the validation images.

        Raises:
            ZooError: none could be trained.
        """
        assert stage.run is not None
        trainings = read_trainings(self._store, stage.run)
        trained = [each for each in trainings if each.validation]
        if not trained:
            first = next((f" The first: {each.name}: {each.error}" for each in trainings if each.error), "")
            raise ZooError(f"None of the candidates could be trained.{first}")
        best = sorted(trained, key=lambda each: -each.validation[self._request.seed])
        return [each.pairing for each in best[: max(1, len(best) // REDUCTION)]]

    @property
    def _options(self) -> dict[str, Any]:
        """The options that all pairings share."""
        return {"classes": self._request.classes, "in_channels": self._request.in_channels}


def _rung_steps(candidates: int, budget: int) -> list[int]:
    """Return the steps after which candidates are compared, and the steps of the whole training."""
    rungs = min(2, int(math.log(max(candidates, 1), REDUCTION) + 1e-9))
    return sorted({-(-budget // REDUCTION**rung) for rung in range(rungs + 1)})


def _rough_seconds(candidate: Candidate) -> float:
    """Return about how long a rough measurement of a candidate takes."""
    return OVERHEAD_SECONDS + CALLS * candidate.latency.seconds


def _ids(pairing: Pairing) -> Ids:
    return pairing.encoder, pairing.decoder


def _pick_evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
