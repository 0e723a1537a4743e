"""The state of a run that is being measured: its trials, their stored results, and its jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.measuring.jobs import Job, JobKind
from zoo.benchmark.messages import Activity, ColdStart, Failure, JobEnvironment, Message
from zoo.benchmark.running.local import Executor, do_here
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.store.records import StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial, format_dimensions

if TYPE_CHECKING:
    from zoo.data.segmentation_data import SegmentationData

__all__ = ["Session"]


@dataclass(slots=True, kw_only=True)
class Session:
    """The state that the passes of a run share, from the start or resumption of the run to its end.

    A pass determines one kind of result for all trials: computed costs, cold starts, rounds, results of smaller batches, or
    scores.

    Attributes:
        run: the number of the run in the store.
        environment_id: the number of this machine's environment in the store.
        stored: a mapping from each trial's key to its stored results. It is updated together with the store, because reading
            all results again takes a long time.
        baselines: a mapping from the key of each control to the key of its baseline.
        only_here: the keys of the trials whose models only this process can build.
        data: the data to train on; None if nothing is trained.
        group_environments: a mapping from the number of each group that another machine measures to the number of that
            machine's environment in the store.
        began: the time at which this session began (`time.monotonic`).
        measured_seconds: the total time of the calls that this session measured.
    """

    config: BenchConfig
    store: Store
    watcher: Watcher
    device: torch.device
    executor: Executor
    run: int
    environment_id: int
    trials: Mapping[str, Trial]
    stored: dict[str, StoredTrial]
    baselines: Mapping[str, str]
    only_here: set[str]
    data: SegmentationData | None = None
    group_environments: dict[int, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    measured_seconds: float = 0.0

    def make_job(self, kind: JobKind, keys: Iterable[str]) -> Job:
        """Return a job for these trials."""
        return Job(
            kind=kind,
            device=str(self.device),
            trials=tuple(self.trials[key] for key in keys),
            plugins=tuple(self.config.plugins),
            threads=torch.get_num_threads(),
            warmup=self.config.warmup,
            seed=self.config.seed,
        )

    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Run jobs and yield their messages; jobs that only this process can run come last."""
        local_jobs: list[Job] = []

        def other_jobs() -> Iterator[Job]:
            for job in jobs:
                if self.only_here.isdisjoint(trial.key for trial in job.trials):
                    yield job
                else:
                    local_jobs.append(job)

        # The executor exhausts `other_jobs` first, so that `local_jobs` is complete when `do_here` begins.
        for job, message in chain(self.executor.run(other_jobs()), do_here(local_jobs)):
            if isinstance(message, JobEnvironment):
                self.group_environments[job.group] = self.store.environment_id(self.run, message.environment)
                continue
            if isinstance(message, Activity) and job.kind != "rounds":
                self.watcher.advance(f"{message.doing}: {self.format_trial(message.trial)}", 0)
            yield job, message

    def live(self) -> dict[str, StoredTrial]:
        """Return a mapping with the stored results of the trials that can still be measured. Its keys are the trials' keys."""
        return {key: stored for key, stored in self.stored.items() if self.is_live(key)}

    def is_live(self, key: str) -> bool:
        """Return whether a trial can still be measured.

        A failed trial cannot be measured. If a baseline failed, its control (its copy) cannot be measured either.
        """
        return not self.stored[key].error and not self.stored[self.baselines.get(key, key)].error

    def is_control(self, key: str) -> bool:
        """Return whether a trial is a control, that is, a copy of its block's baseline."""
        return key in self.baselines

    def find_missing(self, fact: str) -> list[str]:
        """Return the keys of the trials that can still be measured and whose result `fact` is missing.

        Controls (copies of baselines) are left out. `fact` is the name of an attribute of `StoredTrial`, such as "cost".
        """
        return [key for key, stored in self.live().items() if getattr(stored, fact) is None and not self.is_control(key)]

    def remember(self, key: str, **facts: Any) -> None:
        """Update this session's copy of a trial's results after a change to the store."""
        self.stored[key] = replace(self.stored[key], **facts)

    def keep_cold_start(self, cold_start: ColdStart, *, is_shared: bool) -> None:
        """Store a cold-start measurement. If several trials share the process, its resident memory is left out."""
        cold_start = replace(cold_start, rss_bytes=None) if is_shared else cold_start
        self.store.add_cold_start(self.run, cold_start)
        self.remember(cold_start.trial, cold_start=cold_start)

    def keep_failure(self, failure: Failure) -> None:
        """Store a failure, and report it."""
        self.store.add_failure(self.run, failure)
        self.remember(failure.trial, failure=failure.kind, error=failure.error)
        self.watcher.say(f"FAILED {self.format_trial(failure.trial)}: {failure.error.splitlines()[0]}")

    def format_trial(self, key: str | None) -> str:
        """Return a trial as text; "" if there is no such trial."""
        trial = self.trials.get(key or "")
        return f"{format_dimensions(trial)}: {trial}" if trial else ""
