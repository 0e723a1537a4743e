"""Measure a whole run according to its configuration, or resume an interrupted run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from zoo.benchmark.config import BenchConfig, fit_to_data
from zoo.benchmark.measuring.steps import check_runtime
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.group_pass import measure_groups
from zoo.benchmark.running.identity import run_identity
from zoo.benchmark.running.local import Executor, Limits, LocalProcesses
from zoo.benchmark.running.preload import is_made_here, modules_to_import
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.running.session import Session
from zoo.benchmark.running.training_pass import (
    TRAINING_MODULES,
    TrainingLimits,
    load_data,
    measure_floors,
    measure_quality,
)
from zoo.benchmark.running.trial_passes import compute_costs, measure_cold_starts, try_smaller_batches
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import make_trials
from zoo.common.devices import choose_device
from zoo.registry.plugin_files import load_plugin_file

__all__ = ["ExecutorFactory", "measure_session", "open_session", "run_sweep"]

ExecutorFactory: TypeAlias = Callable[[Limits, Sequence[str]], AbstractContextManager[Executor]]
"""A function that returns a context manager, which provides an executor.

The arguments of the function are the limits of the jobs and the names of the modules to import."""


def run_sweep(
    config: BenchConfig, store: Store, watcher: Watcher, make_executor: ExecutorFactory = LocalProcesses
) -> StoredRun:
    """Measure everything that a configuration's run has not measured yet, and return the run.

    Raises:
        ZooError: the configuration has an error (then nothing is measured), or the executor cannot run the jobs. A trial that
            fails raises no error: its row in the table reports the failure.
    """
    with open_session(config, store, watcher, make_executor) as session:
        measure_session(session)
    store.finish_run(session.run)
    return store.run(session.run)


def measure_session(session: Session, training: TrainingLimits | None = None) -> None:
    """Measure everything that a run has not measured yet, and train its models.

    Args:
        session: the run.
        training: where checkpoints are kept, and when no further training begins.
    """
    # Computed costs first: a model that cannot be built fails before any time is spent on measuring. The costs also decide
    # which trials fit into memory as a group. A trial that failed in one pass is left out of all later ones.
    compute_costs(session)
    if session.device.type == "cpu":
        measure_cold_starts(session)
    measure_groups(session)
    try_smaller_batches(session)
    _say_measured_share(session)
    if session.data:
        measure_floors(session, session.data)
        measure_quality(session, session.data, training)


@contextmanager
def open_session(config: BenchConfig, store: Store, watcher: Watcher, make_executor: ExecutorFactory) -> Iterator[Session]:
    """Start a configuration's run, or resume it if it was interrupted, and yield its session.

    Raises:
        ZooError: the configuration has an error.
    """
    # All errors of the configuration are detected first, so that no run begins and then stops because of one.
    from_files = {entry for plugin in config.plugins for entry in load_plugin_file(Path(plugin))}
    device = choose_device(config.device)
    for runtime in config.runtime:
        check_runtime(runtime, device)
    environment = describe_environment(device).as_dict()
    data = load_data(config.quality) if config.quality else None
    if data:
        config = fit_to_data(config, len(data.classes), data.in_channels, data.name)
        for note in data.notes:
            watcher.say(f"{data.name}: {note}.")
    trials = make_trials(config)

    # An interrupted run is resumed if its configuration, files and environment are the same as now.
    run = store.start_run(config.name, run_identity(config, trials, data), environment, trials)
    if run.is_resumed:
        done = sum(group.rounds for group in store.groups(run.id))
        watcher.say(f"Resuming run {run.id} of {run.started}: {done} rounds are measured.")
    memory_limit = None if config.memory_limit is None else int(config.memory_limit * 2**30)
    limits = Limits(step_seconds=config.step_limit, memory_bytes=memory_limit)
    preload = [*modules_to_import(trials), *(TRAINING_MODULES if data else ())]
    with make_executor(limits, preload) as executor:
        yield Session(
            config=config,
            store=store,
            watcher=watcher,
            device=device,
            executor=executor,
            run=run.id,
            environment_id=store.environment_id(run.id, environment),
            trials={trial.key: trial for trial in trials},
            stored={stored.key: stored for stored in store.trials(run.id)},
            baselines={trial.key: replace(trial, role="baseline").key for trial in trials if trial.role == "control"},
            only_here={trial.key for trial in trials if is_made_here(trial, from_files)},
            data=data,
        )


def _say_measured_share(session: Session) -> None:
    """Report the share of the time that the measured calls took.

    The remaining time was spent on starting processes, building models and warming up.
    """
    passed = time.monotonic() - session.began
    if session.measured_seconds and not session.group_environments:  # no share if several machines work at the same time
        share = 100 * session.measured_seconds / passed
        session.watcher.say(f"Measured calls took {session.measured_seconds:.0f} of {passed:.0f} s ({share:.0f} %).")
