"""Run the stages of a search, each as a run in the store, and go on with a stage that was interrupted."""

from __future__ import annotations

import json
import math
import time
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
from zoo.common.choices import SEARCH_STAGE
from zoo.pairing.pairing import Pairing
from zoo.search.request import SearchRequest
from zoo.search.search_folder import SearchFolder, Stage, StageKind

__all__ = ["FEWEST_TRAINED", "StageRunner"]

FEWEST_TRAINED = 3
"""How many candidates are measured and trained even if there is no time."""
ROUGH_ROUNDS = 20
"""The number of rounds in which candidates are measured roughly."""
FINAL_ROUNDS: int | RoundsEntry = RoundsEntry()
"""The number of rounds in which the best ones are measured precisely."""
SAVE_SECONDS = 10.0
"""How often the state of the search is saved during a stage."""


class StageRunner:
    """Runs the stages of a search, and records them in its folder. Each stage is a run in the store.

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

    @property
    def elapsed(self) -> float:
        """The seconds that the search has taken, with those before an interruption."""
        return time.monotonic() - self._began

    @property
    def total(self) -> float:
        """The seconds that the search may take."""
        return 60 * self._request.minutes

    def deadline(self, share: float) -> float:
        """Return the time (`time.monotonic`) at which a share of the whole time is over."""
        return self._began + share * self.total

    def resume(self) -> None:
        """Finish the stage that was interrupted, if any."""
        if self._folder.state.stages and not self._folder.state.stages[-1].is_finished:
            self._perform(self._folder.state.stages[-1])

    def last(self, kind: StageKind) -> Stage | None:
        """Return the last stage of a kind; None if there is none."""
        return next((stage for stage in reversed(self._folder.state.stages) if stage.kind == kind), None)

    def begin(self, kind: StageKind, pairings: Sequence[Pairing], *, until: float | None = None, **changes: Any) -> None:
        """Add a stage to the search, and run it.

        Args:
            kind: the kind of the stage.
            pairings: the pairings to measure or train.
            until: the seconds of the whole search after which the stage begins no further training; None for no limit.
            changes: keys of the run's configuration, with their values.
        """
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
