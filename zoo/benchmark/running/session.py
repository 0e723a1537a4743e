"""A run that is being measured: its trials with their stored facts, and its jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.measuring.jobs import Job, JobKind
from zoo.benchmark.messages import Activity, ColdStart, Failure, JobEnvironment, Message
from zoo.benchmark.running.local import Executor, do_here
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.store.records import StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial, format_dimensions

__all__ = ["Session"]


@dataclass(slots=True, kw_only=True)
class Session:
    """One call of a run: the state that its passes share.

    Attributes:
        run: its number in the store.
        environment_id: the store's number of this machine's environment.
        stored: the stored facts of each trial; kept in step with the store, because reading all of them takes long.
        baselines: the key of each control's baseline.
        only_here: the keys of the trials that only this process can make.
        group_environments: the store's numbers of the environments of groups that other machines measure, by group.
        began: when this call began, in seconds.
        measured_seconds: the total time of the measured calls.
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
        """Return the trials that have not failed, and whose baseline has not: a control is worth nothing without it."""
        return {key: stored for key, stored in self.stored.items() if self.is_live(key)}

    def is_live(self, key: str) -> bool:
        """Return whether a trial can still be measured."""
        return not self.stored[key].error and not self.stored[self.baselines.get(key, key)].error

    def is_control(self, key: str) -> bool:
        """Return whether a trial is a second copy of its block's baseline."""
        return key in self.baselines

    def find_missing(self, fact: str) -> list[str]:
        """Return the keys of the live trials without a fact; a control needs none, since it has its baseline's."""
        return [key for key, stored in self.live().items() if getattr(stored, fact) is None and not self.is_control(key)]

    def remember(self, key: str, **facts: Any) -> None:
        """Keep facts that the store has been given."""
        self.stored[key] = replace(self.stored[key], **facts)

    def keep_cold_start(self, cold_start: ColdStart, *, is_shared: bool) -> None:
        """Store a cold start; a process that trials share does not tell how much resident memory one of them takes."""
        cold_start = replace(cold_start, rss_bytes=None) if is_shared else cold_start
        self.store.add_cold_start(self.run, cold_start)
        self.remember(cold_start.trial, cold_start=cold_start)

    def keep_failure(self, failure: Failure) -> None:
        """Store a failure, and report it."""
        self.store.add_failure(self.run, failure)
        self.remember(failure.trial, failure=failure.kind, error=failure.error)
        self.watcher.say(f"FAILED {self.format_trial(failure.trial)}: {failure.error.splitlines()[0]}")

    def format_trial(self, key: str | None) -> str:
        """Return a trial in words; "" for none."""
        trial = self.trials.get(key or "")
        return f"{format_dimensions(trial)}: {trial}" if trial else ""
