"""Search for the best pairing: estimate all, measure the most promising ones, and train candidates by successive halving."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.benchmark.config import BenchConfig, RoundsEntry
from zoo.benchmark.running.group_pass import measure_groups
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.running.session import Session
from zoo.benchmark.running.sweep import ExecutorFactory, measure_session, open_session
from zoo.benchmark.running.training_pass import TrainingLimits, measure_quality
from zoo.benchmark.running.trial_passes import compute_costs
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table, table_of
from zoo.benchmark.trial import subject_key
from zoo.common.choices import SEARCH_STAGE
from zoo.errors import ZooError
from zoo.pairing.pairing import Pairing
from zoo.registry.registry import default_registry
from zoo.search.candidates import Candidate, find_weights
from zoo.search.ranking import Front, closeness, spread
from zoo.search.request import SearchRequest
from zoo.search.search_folder import SearchFolder, Stage, StageKind

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
REDUCTION = 3
"""One of so many candidates is trained further."""
FEWEST_TRAINED = 3
"""How many candidates are measured and trained even if there is no time."""
MOST_TRAINED = 27
"""The largest number of candidates that are trained."""
ROUGH_ROUNDS = 20
"""The number of rounds in which candidates are measured roughly."""
FINAL_ROUNDS: int | RoundsEntry = RoundsEntry()
"""The number of rounds in which the best ones are measured precisely."""
SAVE_SECONDS = 10.0
"""How often the state of the search is saved during a stage."""
SEEDS = 3
"""How many times the best candidates are trained to the end, if there is time."""


class Searcher:
    """Runs the stages of a search. Each stage is a run in the store. An interrupted stage is resumed.

    Args:
        request: what the search looks for.
        store: the results store.
        watcher: shows the progress.
        folder: the folder of the search.
        make_executor: as for `zoo.benchmark.running.sweep.run_sweep`.
    """

    def __init__(
        self, request: SearchRequest, store: Store, watcher: Watcher, folder: SearchFolder, make_executor: ExecutorFactory
    ) -> None:
        self._request = request
        self._store = store
        self._watcher = _SavingWatcher(watcher, self._save)
        self._folder = folder
        self._make_executor = make_executor
        self._began = time.monotonic() - folder.state.spent
        self._rough: tuple[tuple[int, ...], list[Row]] = ((), [])  # the rows of these runs, since reading them takes time

    @property
    def elapsed(self) -> float:
        """The seconds that the search has taken, with those before an interruption."""
        return time.monotonic() - self._began

    @property
    def _total(self) -> float:
        return 60 * self._request.minutes

    def deadline(self, share: float) -> float:
        """Return the time (`time.monotonic`) at which a share of the whole time is over."""
        return self._began + share * self._total

    def resume(self) -> None:
        """Finish the stage that was interrupted, if any."""
        if self._folder.state.stages and not self._folder.state.stages[-1].is_finished:
            self._perform(self._folder.state.stages[-1])

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Measure candidates roughly: the most promising ones or, with data, those to train."""
        if not self._request.quality:
            while batch := self.choose_batch(candidates):
                self._begin("measure", [candidate.pairing for candidate in batch])
        elif not self._last("measure"):
            chosen = self._choose_for_training(candidates)
            self._folder.state.considered["untried"] = len(candidates) - len(chosen)
            self._begin("measure", [candidate.pairing for candidate in chosen])

    def finish(self, candidates: Sequence[Candidate]) -> None:
        """Train candidates, if there are data, and measure the best ones precisely.

        Raises:
            ZooError: no candidate could be measured or trained.
        """
        if self._request.quality:
            self._train(candidates)
        else:
            considered = self._folder.state.considered
            considered["promising"] = len(self.find_promising(candidates))
            considered["too_slow"] = sum(map(self.is_too_slow, candidates))
            self._measure_finalists(candidates)

    def final(self) -> Table | None:
        """Return the table of the last stage; None if the search is not there yet."""
        stage = self._last("final")
        return table_of(self._store, stage.run) if stage and stage.run is not None else None

    # Measuring

    def choose_batch(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates to measure next: those that are estimated to be closest to the front of time and score."""
        left = MEASURING_SHARE * self._total - self.elapsed
        seconds = min(left, max(STAGE_SECONDS, left / 4))
        batch: list[Candidate] = []
        families = Counter[str]()
        for candidate in self._rank(self.find_promising(candidates)):
            if families[candidate.family] < MOST_OF_A_FAMILY and seconds >= _rough_seconds(candidate):
                families[candidate.family] += 1
                seconds -= _rough_seconds(candidate)
                batch.append(candidate)
        return batch

    def find_promising(self, candidates: Sequence[Candidate]) -> list[Candidate]:
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
            and not self.is_too_slow(candidate)
        ]

    def is_too_slow(self, candidate: Candidate) -> bool:
        """Return whether measuring a candidate would take too much of the time."""
        return _rough_seconds(candidate) > LONGEST_SHARE * self._total

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
        prior = self._request.prior
        return [
            (row.latency.median, prior[row.encoder] if prior else float(row.flops or 0))
            for row in self._fitting_rows()
            if row.latency
        ]

    def _measure_finalists(self, candidates: Sequence[Candidate]) -> None:
        """Measure the best of the roughly measured pairings precisely."""
        rows = self._fitting_rows()
        near = [row for row, share in zip(rows, closeness(self._measured_points()), strict=True) if share >= 1 / MARGIN]
        if not near:
            raise ZooError(self._explain_failure(candidates))
        chosen = _pick_evenly(sorted(near, key=lambda row: row.latency.median if row.latency else math.inf), FINALISTS)
        groups = -(-len(chosen) // BenchConfig.model_fields["group_size"].default)
        seconds = max(1.0, (self._total - self.elapsed) / groups)
        pairings = [Pairing(row.encoder, row.decoder, **self._options) for row in chosen]
        self._begin("final", pairings, budget=seconds)

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
        """Return the measured rows that meet every limit on a value that is known."""
        limits = self._request.limits
        return [
            row
            for row in self.rough_rows()
            if row.latency and all(limit.fact.value(row) is None or limit.meets(row) for limit in limits)
        ]

    def _explain_failure(self, candidates: Sequence[Candidate]) -> str:
        """Return why there is no measured pairing that meets the limits."""
        rows = self.rough_rows()
        if not rows:
            seconds = min((_rough_seconds(candidate) for candidate in candidates), default=math.inf) / LONGEST_SHARE
            return (
                f"No candidate could be measured in {self._request.minutes:g} minutes. To measure the fastest of them, set "
                f"--minutes to at least {math.ceil(seconds / 6) / 10:g}."
            )
        failed = [row for row in rows if row.failure]
        slow = [row for row in rows if row.latency]
        text = f"None of the {len(rows)} measured pairings meets the limits: {len(failed)} failed, {len(slow)} exceed a limit."
        nearest = min(slow, key=lambda row: row.latency.median if row.latency else math.inf, default=None)
        if nearest and nearest.latency:
            text += f" The fastest is {nearest.name}, with {1e3 * nearest.latency.median:.1f} ms."
        if failed:
            text += f" The first failure: {failed[0].name}: {failed[0].error}. `zoo table {failed[0].run}` shows all errors."
        return text

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
                left = self._total - self.elapsed
                until = self.elapsed + left / (len(steps) - number) if number == 0 else None
                self._begin(
                    "train",
                    pairings,
                    quality=quality.model_copy(update={"seeds": 1, "first_seed": self._request.seed, "stop_after": stop}),
                    until=until,
                )
                rungs = [stage for stage in self._folder.state.stages if stage.kind == "train"]
            pairings = self._best_of(rungs[number])
        if not self._last("final"):
            final = quality.model_copy(update={"seeds": SEEDS, "first_seed": self._request.seed, "stop_after": quality.budget})
            self._begin("final", pairings, quality=final, until=self._total)

    def _choose_for_training(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates to train: those closest to the front of time and score, of as many families as possible."""
        left = MEASURING_SHARE_WITH_DATA * (self._total - self.elapsed)
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
        qualities = self._store.qualities(stage.run)
        scores: dict[Pairing, float] = {}
        errors = []
        for stored in self._store.trials(stage.run):
            assert isinstance(stored.trial.subject, Pairing)
            result = qualities.get(subject_key(stored.trial.subject), {}).get(self._request.seed)
            if result and result.result and result.result.validation is not None:
                scores[stored.trial.subject] = result.result.validation
            elif result and result.error:
                errors.append(f"{stored.trial}: {result.error.splitlines()[0]}")
        if not scores:
            first = f" The first: {errors[0]}" if errors else ""
            raise ZooError(f"None of the candidates could be trained.{first}")
        return sorted(scores, key=lambda pairing: -scores[pairing])[: max(1, len(scores) // REDUCTION)]

    # Stages

    def _begin(self, kind: StageKind, pairings: Sequence[Pairing], *, until: float | None = None, **changes: Any) -> None:
        """Add a stage to the search, and run it."""
        stage = Stage(kind=kind, config=self._config(kind, pairings, changes).model_dump(mode="json"), until=until)
        self._folder.state.stages.append(stage)
        self._perform(stage)

    def _config(self, kind: StageKind, pairings: Sequence[Pairing], changes: Mapping[str, Any]) -> BenchConfig:
        request = self._request
        is_cost = kind == "measure"
        entries = [
            {
                "encoder": pairing.encoder,
                "decoder": pairing.decoder,
                # weights do not change the cost, and might have to be downloaded
                **({"weights": pairing.weights} if pairing.weights and not is_cost else {}),
            }
            for pairing in pairings
        ]
        config = BenchConfig.model_validate(
            {
                "name": f"zoo search {self._folder.path.name}" if kind == "final" else SEARCH_STAGE,
                "pairings": entries,
                "plugins": list(request.plugins),
                "classes": request.classes,
                "in_channels": request.in_channels,
                "modes": ["inference"],
                "batch": [request.batch],
                "size": [(request.height, request.width)],
                "device": request.device,
            }
        )
        return config.model_copy(update={"rounds": ROUGH_ROUNDS if is_cost else FINAL_ROUNDS, **changes})

    def _perform(self, stage: Stage) -> None:
        """Run a stage, or go on with it if it was interrupted."""
        if stage.run is None or self._store.run(stage.run).finished is None:
            self._save()  # so that an interrupted stage goes on with the same configuration
            config = BenchConfig.model_validate_json(json.dumps(stage.config))
            try:
                with open_session(config, self._store, self._watcher, self._make_executor) as session:
                    stage.run = session.run
                    self._save()
                    self._run_passes(stage, session)
            finally:
                self._save()
            self._store.finish_run(session.run)
        stage.is_finished = True
        self._save()

    def _run_passes(self, stage: Stage, session: Session) -> None:
        trained = [key for key in session.live() if not session.is_control(key)]
        limits = TrainingLimits(
            folder=self._folder.training,
            deadline=math.inf if stage.until is None else self._began + stage.until,
            minimum=len(trained) if stage.kind == "final" else FEWEST_TRAINED,
        )
        if stage.kind == "measure":
            compute_costs(session)
            measure_groups(session)
        elif stage.kind == "final":
            measure_session(session, limits)
        else:
            assert session.data is not None
            measure_quality(session, session.data, limits)

    def _save(self) -> None:
        self._folder.state.spent = self.elapsed
        self._folder.save()

    def _last(self, kind: StageKind) -> Stage | None:
        return next((stage for stage in reversed(self._folder.state.stages) if stage.kind == kind), None)

    @property
    def _options(self) -> dict[str, Any]:
        """The options that all pairings share."""
        return {"classes": self._request.classes, "in_channels": self._request.in_channels}


class _SavingWatcher:
    """Shows the progress, and also saves the state of the search regularly, so that a kill loses little of the time spent."""

    def __init__(self, watcher: Watcher, save: Callable[[], None]) -> None:
        self.begin, self.say, self.log = watcher.begin, watcher.say, watcher.log
        self._advance = watcher.advance
        self._save = save
        self._saved = time.monotonic()

    def advance(self, what: str, count: int = 1) -> None:
        """Show the progress."""
        self._advance(what, count)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._saved = time.monotonic()
            self._save()


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
