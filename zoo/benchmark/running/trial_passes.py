"""Handle trials one by one: costs, cold starts, times of operations, and smaller batches for those that ran out of memory."""

from __future__ import annotations

from dataclasses import replace

from zoo.benchmark.messages import ColdStart, Failure, TrialCost, UnknownCost
from zoo.benchmark.operation import OperationTimes
from zoo.benchmark.running.session import Session
from zoo.benchmark.trial import Trial

__all__ = ["compute_costs", "measure_cold_starts", "time_operations", "try_smaller_batches"]

TIMED_TOGETHER = 8
"""How many trials take turns when their operations are timed. All their models are on the device at the same time."""


def compute_costs(session: Session) -> None:
    """Compute and store the costs of each trial that need no measurement, such as its FLOPs."""
    unknown: set[str] = set()
    # Repeat while costs are missing: if a trial makes the process crash, the costs of the trials after it are still missing.
    while missing := [key for key in session.find_missing("cost") if key not in unknown]:
        shares = [[key for key in missing if (key in session.only_here) is is_here] for is_here in (False, True)]
        for _, message in session.run_jobs(session.make_job("count", share) for share in shares if share):
            if isinstance(message, TrialCost):
                session.store.add_cost(session.run, message.trial, message.cost)
                session.remember(message.trial, cost=message.cost)
            elif isinstance(message, UnknownCost):
                unknown.add(message.trial)
                session.store.add_note(
                    session.run,
                    message.trial,
                    f"FLOPs and other computed costs are unknown: computing them raised {message.reason}",
                )
            elif isinstance(message, Failure):
                session.keep_failure(message)


def measure_cold_starts(session: Session) -> None:
    """Measure each trial's cold start and memory in a fresh process.

    This is done on the CPU only. On an accelerator, `measure_groups` measures these values, in one process for all trials of
    a group: the accelerator's allocator counts the memory of each trial there, and opening the device in a new process would
    take longer than measuring most trials.
    """
    while missing := session.find_missing("cold_start"):
        for _, message in session.run_jobs(session.make_job("cold start", [key]) for key in missing):
            if isinstance(message, ColdStart):
                session.keep_cold_start(message, is_shared=message.trial in session.only_here)
            elif isinstance(message, Failure):
                session.keep_failure(message)


def time_operations(session: Session) -> None:
    """Time the operations of the trials, a few trials in each process."""
    session.watcher.begin(len(session.find_missing("operation_times")))
    while missing := session.find_missing("operation_times"):
        groups = [missing[start : start + TIMED_TOGETHER] for start in range(0, len(missing), TIMED_TOGETHER)]
        for _, message in session.run_jobs(session.make_job("operations", group) for group in groups):
            if isinstance(message, OperationTimes):
                session.store.add_operation_times(session.run, message)
                session.remember(message.trial, operation_times=message)
                session.watcher.advance(f"timed {session.format_trial(message.trial)}")
            elif isinstance(message, Failure):
                session.keep_failure(message)


def try_smaller_batches(session: Session) -> None:
    """Repeat the measurement of each trial that ran out of memory, with at most half its batch size."""
    for stored in session.stored.values():
        is_tried = stored.smaller_batch is not None or session.is_control(stored.key)
        if stored.failure == "out of memory" and not is_tried:
            _try_smaller_batches(session, session.trials[stored.key])


def _try_smaller_batches(session: Session, trial: Trial) -> None:
    """Halve a trial's batch size until the trial fits into memory, and store the result.

    The result is shown next to the failure, and is not compared with the results of other trials.
    """
    batch = trial.batch // 2
    while batch:
        job = replace(session.make_job("cold start", [trial.key]), trials=(replace(trial, batch=batch),))
        for _, message in session.run_jobs([job]):
            if isinstance(message, ColdStart):
                session.store.add_smaller_batch(session.run, replace(message, trial=trial.key))
                return
            if isinstance(message, Failure) and message.kind != "out of memory":
                return
        batch //= 2
