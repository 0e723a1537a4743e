"""A run from its configuration to its last sample: a static pass, then interleaved rounds, each kept as it comes."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.cost import static_cost
from zoo.benchmark.environment import choose_device, describe_environment
from zoo.benchmark.measure import (
    Failure,
    PreparedTrial,
    Sample,
    measure_round,
    peak_memory,
    prepare,
    told_failure,
)
from zoo.benchmark.progress import Watcher
from zoo.benchmark.store import Store, StoredRun
from zoo.benchmark.trial import Trial, digest, groups_of, trials_of
from zoo.errors import ZooError
from zoo.plugin_files import load_plugin_file

__all__ = ["run_sweep"]


def run_sweep(config: BenchConfig, store: Store, watcher: Watcher) -> StoredRun:
    """Measure what is not measured yet of a configuration's run, and return the run.

    Raises:
        ZooError: before anything is measured, for what is wrong with the configuration. What fails later is a row.
    """
    for plugin in config.plugins:
        load_plugin_file(Path(plugin))
    device = choose_device(config.device)
    environment = describe_environment(device).as_dict()
    trials = trials_of(config)
    run = store.start_run(config.name, _identity(config), environment, trials)
    sweep = _Sweep(config=config, store=store, watcher=watcher, device=device, run=run.id)
    if run.is_resumed:
        watcher.say(
            f"Resuming run {run.id} of {run.started}: {sweep.done(trials)} of {sweep.total(trials)} slots are measured."
        )
    watcher.begin(sweep.total(trials))
    sweep.count_costs(trials)
    for group in groups_of(trials):
        sweep.measure(group)
    store.finish_run(run.id)
    return store.run(run.id)


def _identity(config: BenchConfig) -> dict[str, object]:
    """Return what a resumed run must share: the configuration, and the content of the files it names."""
    files = {path: digest(Path(path).read_text(encoding="utf-8")) for path in config.plugins}
    return {**config.model_dump(mode="json"), "plugins": files}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    config: BenchConfig
    store: Store
    watcher: Watcher
    device: torch.device
    run: int

    def total(self, trials: list[Trial]) -> int:
        return len(trials) * self.config.rounds

    def done(self, trials: list[Trial]) -> int:
        return sum(len(stored.samples) for stored in self.store.trials(self.run))

    def count_costs(self, trials: list[Trial]) -> None:
        """The static pass: what cannot be built fails before any time is spent on measuring.

        A model that is built and cannot run here may still run on the device; then its costs stay unknown.
        """
        known = {stored.key: stored for stored in self.store.trials(self.run)}
        for trial in trials:
            if known[trial.key].cost or known[trial.key].error:
                continue
            self.watcher.advance(f"counting: {trial.subject}", 0)
            try:
                self.store.add_cost(self.run, trial, static_cost(trial, self.device))
            except ZooError as cause:
                self._fail(trial, cause)
            except Exception as cause:  # noqa: BLE001 - a plugin's model may raise anything
                self.watcher.say(f"No costs for {_told(trial)}: {told_failure(cause).splitlines()[0]}")

    def measure(self, group: list[Trial]) -> None:
        """Measure one group's missing rounds; all its models are on the device at once, so that rounds interleave them."""
        known = {stored.key: stored for stored in self.store.trials(self.run)}
        live = [trial for trial in group if not known[trial.key].error]
        missing = [
            number for number in range(self.config.rounds) if any(number not in known[trial.key].samples for trial in live)
        ]
        self.watcher.advance("already measured", (self.config.rounds - len(missing)) * len(group))
        if not missing:
            return
        self._peaks([trial for trial in live if known[trial.key].device_bytes is None])
        prepared = self._prepared(live)
        for number in missing:
            kept: list[Sample] = []
            absent = len(group) - len(prepared)
            for outcome in measure_round(prepared, self.device, number=number, seed=self.config.seed):
                if isinstance(outcome, Failure):
                    self._record(outcome)
                    prepared = [entry for entry in prepared if entry.trial != outcome.trial]
                else:
                    kept.append(outcome)
                self.watcher.advance(_told(outcome.trial))
            self.store.add_round(self.run, number, kept)
            self.watcher.advance("failed earlier", absent)
        del prepared
        gc.collect()

    def _peaks(self, trials: list[Trial]) -> None:
        """Measure each trial's memory alone on the device, in a pass of its own."""
        for trial in trials:
            self.watcher.advance(f"memory: {_told(trial)}", 0)
            try:
                peak = peak_memory(trial, self.device, seed=self.config.seed)
            except Exception as cause:  # noqa: BLE001 - whatever a plugin's model raises becomes its row
                self._fail(trial, cause)
            else:
                if peak is not None:
                    self.store.add_device_bytes(self.run, trial, peak)

    def _prepared(self, trials: list[Trial]) -> list[PreparedTrial]:
        failed = {stored.key for stored in self.store.trials(self.run) if stored.error}
        prepared = []
        for trial in trials:
            if trial.key in failed:
                continue
            self.watcher.advance(f"warming up: {_told(trial)}", 0)
            try:
                prepared.append(prepare(trial, self.device, warmup=self.config.warmup, seed=self.config.seed))
            except Exception as cause:  # noqa: BLE001 - whatever a plugin's model raises becomes its row
                self._fail(trial, cause)
        return prepared

    def _fail(self, trial: Trial, cause: Exception) -> None:
        self._record(Failure(trial=trial, error=told_failure(cause)))

    def _record(self, failure: Failure) -> None:
        self.store.add_failure(self.run, failure)
        self.watcher.say(f"FAILED {_told(failure.trial)}: {failure.error.splitlines()[0]}")


def _told(trial: Trial) -> str:
    return f"{trial.mode}, batch {trial.batch}, {trial.height}x{trial.width}, {trial.dtype}: {trial.subject}"
