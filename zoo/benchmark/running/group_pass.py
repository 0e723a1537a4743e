"""Measure the groups of a run. A group consists of trials that one process measures together, in interleaved rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.measuring.memory import available_bytes
from zoo.benchmark.messages import Activity, ColdStart, Failure, GroupEnd, KernelRate, Message, Round
from zoo.benchmark.rounds import rounds_plan
from zoo.benchmark.running.grouping import pack_groups
from zoo.benchmark.running.session import Session
from zoo.benchmark.store.records import StoredGroup
from zoo.benchmark.trial import digest, format_dimensions, split_into_blocks

__all__ = ["IN_PROCESS", "measure_groups"]

IN_PROCESS = "measured in the calling process: no other process can build a model that a script or notebook defines"


def measure_groups(session: Session) -> None:
    """Measure the rounds of every group that is not finished."""
    _choose_groups(session)
    groups = session.store.groups(session.run)
    maximum = rounds_plan(session.config).maximum
    session.watcher.begin(maximum * len(groups))
    session.watcher.advance("already measured", sum(maximum if group.stopped else group.rounds for group in groups))
    # Repeat until all groups are finished: a job ends early if a trial leaves the device unusable or a machine is lost, and a
    # trial that ran out of memory in a group with other candidates gets a group without them.
    while unfinished := _find_unfinished(session):
        passes = {group.number: _GroupPass(session, group) for group in unfinished}
        for job, message in session.run_jobs(group_pass.make_job() for group_pass in passes.values()):
            passes[job.group].record(job, message)


def _choose_groups(session: Session) -> None:
    """Choose which trials are measured together: divide each block (the trials that are compared with one another) into groups.

    In a resumed run, blocks that already have groups keep them.
    """
    live = session.live()
    grouped = {key for group in session.store.groups(session.run) for key in group.trials}
    for block in split_into_blocks(list(session.trials.values())):
        if grouped.isdisjoint(trial.key for trial in block):
            groups = pack_groups(
                [trial for trial in block if trial.key in live],
                {key: stored.cost.live_bytes for key, stored in live.items() if stored.cost},
                most=session.config.group_size,
                # half of the free memory; the other half is for what the allocator needs beyond the live tensors
                room=available_bytes(session.device) // 2,
            )
            session.store.add_groups(session.run, groups)


def _find_unfinished(session: Session) -> list[StoredGroup]:
    live, groups = session.live(), session.store.groups(session.run)
    return [group for group in groups if not group.stopped and not live.keys().isdisjoint(group.trials)]


class _GroupPass:
    """The measurement of one group by one job.

    Attributes:
        trials: the keys of the group's trials. A trial that ran out of memory is left out if it got a group of its own.
        seconds: a mapping from each trial's key to its seconds per call, one number for each round. The group's earlier rounds
            come first, then the rounds of this job.
    """

    def __init__(self, session: Session, group: StoredGroup) -> None:
        self.session = session
        self.group = group
        self.trials = group.trials
        self.plan = rounds_plan(session.config)
        self.baseline = next((key for key in group.trials if session.trials[key].role == "baseline"), None)
        self.seconds: dict[str, list[float]] = {}

    def make_job(self) -> Job:
        """Return the job that measures the group's missing rounds.

        If only this process can build one of the models, also store this fact as a note for each trial of the job.
        """
        session, group, keys = self.session, self.group, self._live_trials()
        environment = session.environment_id if group.environment_id is None else group.environment_id
        has_rates = (environment, session.trials[keys[0]].dtype) in session.store.rates(session.run)
        if not session.only_here.isdisjoint(keys):
            for key in keys:
                session.store.add_note(session.run, key, IN_PROCESS)
        samples = {key: sorted(group.samples.get(key, {}).items()) for key in keys}
        return replace(
            session.make_job("rounds", keys),
            group=group.number,
            baseline=self.baseline if self.baseline in keys else None,
            plan=self.plan,
            cold_starts=tuple(key for key in keys if session.stored[key].cold_start is None and not session.is_control(key)),
            taken={key: [timing.seconds for _, timing in rounds] for key, rounds in samples.items()},
            first=group.rounds,
            spent=sum(conditions.get("seconds") or 0.0 for conditions in group.conditions),
            environment=digest(group.environment) if group.environment else "",
            rates=not has_rates,
        )

    def record(self, job: Job, message: Message) -> None:
        """Store the result that a message of the job contains, and report the progress."""
        session = self.session
        environment = session.group_environments.get(job.group, session.environment_id)
        label = f"{format_dimensions(job.trials[0])} ({len(job.trials)} models)"
        # The earlier rounds are read from the job as it runs, because an executor may have changed it: on a machine with a
        # different environment, the earlier rounds are removed.
        if not self.seconds:
            self.seconds = {trial.key: list(job.taken.get(trial.key, ())) for trial in job.trials}
        if isinstance(message, KernelRate):
            session.store.add_rate(session.run, environment, message)
        elif isinstance(message, ColdStart):
            session.keep_cold_start(message, is_shared=True)
        elif isinstance(message, Activity) and message.trial is None:
            session.watcher.advance(message.doing, 0)
        elif isinstance(message, Round):
            session.store.add_round(session.run, job.group, environment, message)
            session.measured_seconds += sum(sample.calls * sample.seconds for sample in message.samples)
            for sample in message.samples:
                self.seconds[sample.trial].append(sample.seconds)
            session.watcher.advance(f"{label}: round {message.number + 1}{self._format_fastest()}")
        elif isinstance(message, GroupEnd):
            session.store.stop_group(session.run, job.group, environment, message.reason)
            session.watcher.advance(label, self.plan.maximum - message.rounds)
            session.watcher.log(f"{label}: {message.rounds} rounds ({message.reason}){self._format_fastest()}")
        elif isinstance(message, Failure):
            self._record_failure(message)

    def _record_failure(self, failure: Failure) -> None:
        """Store a failure, unless a trial ran out of memory in a group with other candidates.

        Such a trial is moved to a group without the other candidates, and is measured again there.
        """
        session = self.session
        candidates = [key for key in self._live_trials() if session.trials[key].role == "candidate"]
        if failure.kind != "out of memory" or len(candidates) < 2 or failure.trial not in candidates:
            session.keep_failure(failure)
            return
        ends = [key for key in self.trials if session.trials[key].role != "candidate"]  # the baseline and its copy
        self.trials = tuple(key for key in self.trials if key != failure.trial)
        session.store.replace_group(session.run, self.group.number, [self.trials, [*ends[:1], failure.trial, *ends[1:]]])
        name = session.format_trial(failure.trial)
        session.watcher.say(
            f"{name} ran out of memory while other models were in memory, too. It is measured again without them."
        )

    def _live_trials(self) -> list[str]:
        return [key for key in self.trials if self.session.is_live(key)]

    def _format_fastest(self) -> str:
        """Return text that names the fastest candidate so far; "" if there is none."""
        base: Sequence[float] = self.seconds.get(self.baseline or "", ())
        medians = {
            # The lists differ in length if the candidate or the baseline has failed. Both lists begin with the first round.
            key: statistics.median(own / other for own, other in zip(seconds, base, strict=False))
            for key, seconds in self.seconds.items()
            if seconds and base and self.session.trials[key].role == "candidate"
        }
        fastest = min(medians, key=lambda key: medians[key], default=None)
        return f"; best so far {self.session.trials[fastest]}, {medians[fastest]:.2f} x baseline" if fastest else ""
