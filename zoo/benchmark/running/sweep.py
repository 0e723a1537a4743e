"""A run from its configuration to its end: a static pass, cold starts, the groups, training; all kept as it comes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from zoo.benchmark.config import BenchConfig, fitted
from zoo.benchmark.measuring.jobs import Job, JobKind
from zoo.benchmark.measuring.memory import available_bytes
from zoo.benchmark.measuring.steps import check_runtime
from zoo.benchmark.messages import (
    Alone,
    Counted,
    Failed,
    Message,
    Placed,
    Rated,
    Round,
    Stopped,
    Trained,
    Uncounted,
    Working,
)
from zoo.benchmark.rounds import rounds_plan
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.grouping import packed
from zoo.benchmark.running.local import Executor, Limits, LocalProcesses, do_here
from zoo.benchmark.running.preload import made_here, modules_to_import
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.store.records import StoredGroup, StoredRun, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Reference, Subject, Trial, blocks_of, digest, subject_key, told_dimensions, trials_of
from zoo.common.devices import choose_device
from zoo.common.regular_files import expand_user, files_at, is_regular, sha256_of
from zoo.errors import ConfigError
from zoo.registry.plugin_files import load_plugin_file

if TYPE_CHECKING:
    from zoo.data.segmentation_data import SegmentationData

__all__ = ["IN_PROCESS", "ExecutorFactory", "run_sweep"]

TRAINING_MODULES = ("zoo.benchmark.measuring.training", "zoo.training.lightning_run")
"""What training imports beside the models; it takes seconds."""

IN_PROCESS = "measured in the process that asked: a script or notebook made it, and no other process can"

ExecutorFactory: TypeAlias = Callable[[Limits, Sequence[str]], AbstractContextManager[Executor]]
"""Makes what does the jobs, given their limits and the modules that they will want imported."""


def run_sweep(
    config: BenchConfig, store: Store, watcher: Watcher, make_executor: ExecutorFactory = LocalProcesses
) -> StoredRun:
    """Measure what is not measured yet of a configuration's run, and return the run.

    Raises:
        ZooError: before anything is measured, for what is wrong with the configuration. What fails later is a row.
    """
    from_files = {entry for plugin in config.plugins for entry in load_plugin_file(Path(plugin))}
    device = choose_device(config.device)
    for runtime in config.runtime:
        check_runtime(runtime, device)
    environment = describe_environment(device).as_dict()
    data = _quality_data(config)
    if data:
        config = fitted(config, len(data.classes), data.in_channels, data.name)
        for note in data.notes:
            watcher.say(f"{data.name}: {note}.")
    trials = trials_of(config)
    run = store.start_run(config.name, _identity(config, trials, data), environment, trials)
    if run.is_resumed:
        done = sum(group.rounds for group in store.groups(run.id))
        watcher.say(f"Resuming run {run.id} of {run.started}: {done} rounds are measured.")
    limit = None if config.memory_limit is None else int(config.memory_limit * 2**30)
    limits = Limits(step_seconds=config.step_limit, memory_bytes=limit)
    preload = [*modules_to_import(trials), *(TRAINING_MODULES if data else ())]
    with make_executor(limits, preload) as executor:
        sweep = _Sweep(
            config=config,
            store=store,
            watcher=watcher,
            device=device,
            executor=executor,
            run=run.id,
            here=store.place(run.id, environment),
            trials={trial.key: trial for trial in trials},
            stored={stored.key: stored for stored in store.trials(run.id)},
            baselines={trial.key: replace(trial, role="baseline").key for trial in trials if trial.role == "control"},
            unpickled={trial.key for trial in trials if made_here(trial, from_files)},
        )
        sweep.count()
        if device.type == "cpu":
            sweep.measure_alone()
        sweep.measure_groups()
        sweep.measure_smaller()
        sweep.say_measured_share()
        if data:
            sweep.measure_floors(data)
            sweep.measure_quality(_digest_of(data))
    store.finish_run(run.id)
    return store.run(run.id)


def _quality_data(config: BenchConfig) -> SegmentationData | None:
    """Open what is trained on, before anything is measured: what is wrong with it is told at once."""
    if config.quality is None:
        return None
    from zoo.data.data_config import locate_data
    from zoo.training.fit import check_installed

    check_installed(locate_data(config.quality.data.source, Path()))
    from zoo.benchmark.measuring.training import open_quality_data

    return open_quality_data(config.quality)


def _identity(config: BenchConfig, trials: Sequence[Trial], data: SegmentationData | None) -> dict[str, object]:
    """Return what a resumed run must share: the configuration, and the content of the files it names.

    Raises:
        ConfigError: such a file cannot be read.
    """
    weights = {path for subject in {trial.subject for trial in trials} for path in _files_of(subject)}
    try:
        files = {path: sha256_of(Path(path)) for path in config.plugins}
        content: dict[str, object] = {"weights": {str(path): sha256_of(path) for path in sorted(weights)}} if weights else {}
    except OSError as cause:
        raise ConfigError(f"{cause.filename} cannot be read: {cause.strerror}. Give a file that can.") from cause
    if data:
        content["data_digest"] = _digest_of(data)
    return {**config.model_dump(mode="json"), "plugins": files, **content}


def _files_of(subject: Subject) -> list[Path]:
    """Return the files that a model is made from: its weights, and what its options name."""
    if isinstance(subject, Reference):
        found, options = [], [subject.options]
    else:
        found = files_at(subject.weights) if subject.weights else []
        options = [subject.encoder_options, subject.decoder_options]
    named = (value for each in options for value in each.values() if isinstance(value, str))
    return [*found, *(path for path in map(expand_user, named) if is_regular(path))]


def _digest_of(data: SegmentationData) -> str:
    assert data.fingerprint is not None  # of what `open_quality_data` opened
    return data.fingerprint.digest


@dataclass(slots=True, kw_only=True)
class _Sweep:
    """One run's way through its passes.

    Attributes:
        here: the store's number of this machine's environment.
        stored: what the store has of each trial; kept in step with it, for reading all of them takes long.
        baselines: the key of each control's baseline.
        unpickled: the trials that only this process can make.
        groups: the keys of the trials of each group that is not finished, by the group's number.
        places: the store's numbers of the environments in which groups are measured, by group.
        began: when this call of the run began, seconds.
        measured: seconds that its measured calls took.
    """

    config: BenchConfig
    store: Store
    watcher: Watcher
    device: torch.device
    executor: Executor
    run: int
    here: int
    trials: Mapping[str, Trial]
    stored: dict[str, StoredTrial]
    baselines: Mapping[str, str]
    unpickled: set[str]
    groups: dict[int, tuple[str, ...]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    measured: float = 0.0

    def count(self) -> None:
        """The static pass, on the meta device."""
        uncounted: set[str] = set()
        while missing := [key for key in self._missing("cost") if key not in uncounted]:
            shares = [[key for key in missing if (key in self.unpickled) is is_here] for is_here in (False, True)]
            for _, message in self._run(self._job("count", share) for share in shares if share):
                if isinstance(message, Counted):
                    self.store.add_cost(self.run, message.trial, message.cost)
                    self._remember(message.trial, cost=message.cost)
                elif isinstance(message, Uncounted):
                    uncounted.add(message.trial)
                    self.store.add_note(self.run, message.trial, f"no costs, since counting them raised {message.reason}")
                elif isinstance(message, Failed):
                    self._fail(message)

    def measure_alone(self) -> None:
        """Each trial in a fresh process: its cold start, and its memory.

        On an accelerator the trials of a group share a process instead (`measure_groups`): its allocator counts the memory
        of each, and a new process would take longer to open the device than most trials take to be measured.
        """
        while missing := self._missing("alone"):
            for _, message in self._run(self._job("alone", [key]) for key in missing):
                if isinstance(message, Alone):
                    self._keep_alone(message, is_shared=message.trial in self.unpickled)
                elif isinstance(message, Failed):
                    self._fail(message)

    def _keep_alone(self, alone: Alone, *, is_shared: bool) -> None:
        """Keep a cold start; a process that others share does not tell how much resident memory the trial takes."""
        alone = replace(alone, rss_bytes=None) if is_shared else alone
        self.store.add_alone(self.run, alone)
        self._remember(alone.trial, alone=asdict(alone))

    def _remember(self, key: str, **facts: Any) -> None:
        self.stored[key] = replace(self.stored[key], **facts)

    def measure_smaller(self) -> None:
        """What ran out of memory by itself, at half its batch and less."""
        for stored in self.stored.values():
            if stored.failure == "out of memory" and stored.smaller is None and not self._is_control(stored.key):
                self._try_smaller(self.trials[stored.key])

    def _try_smaller(self, trial: Trial) -> None:
        """Halve the batch until it fits; what is found stands beside the failure, and is compared with nothing."""
        batch = trial.batch // 2
        while batch:
            smaller = replace(trial, batch=batch)
            job = replace(self._job("alone", [trial.key]), trials=(smaller,))
            for _, message in self._run([job]):
                if isinstance(message, Alone):
                    self.store.add_smaller(self.run, replace(message, trial=trial.key))
                    return
                if isinstance(message, Failed) and message.kind != "out of memory":
                    return
            batch //= 2

    def measure_groups(self) -> None:
        """The interleaved rounds, group by group."""
        self._group()
        groups = self.store.groups(self.run)
        most = rounds_plan(self.config).maximum
        self.watcher.begin(sum(most for group in groups))
        self.watcher.advance("already measured", sum(most if group.stopped else group.rounds for group in groups))
        while groups := self._unfinished():
            ratios: dict[int, dict[str, list[float]]] = {}
            for job, message in self._run(map(self._rounds_of, groups)):
                if job.group not in ratios:
                    ratios[job.group] = _ratios_to(job.taken, job.baseline)
                self._record(job, message, ratios[job.group])

    def say_measured_share(self) -> None:
        """Say how much of the time the measured calls took; the rest built models, warmed them up and started processes."""
        passed = time.monotonic() - self.began
        if self.measured and not self.places:  # several machines measure at the same time
            share = 100 * self.measured / passed
            self.watcher.say(f"Measured calls took {self.measured:.0f} of {passed:.0f} s ({share:.0f} %).")

    def measure_floors(self, data: SegmentationData) -> None:
        """What needs no network, for the rows below."""
        from zoo.benchmark.measuring.training import floor_scores
        from zoo.data.baselines import BASELINES

        known = self.store.qualities(self.run)
        for name in BASELINES:
            if name not in known:
                self.watcher.advance(f"scoring the {name}", 0)
                self.store.add_quality(self.run, name, 0, {"scores": floor_scores(data, name).as_dict()})

    def measure_quality(self, data: str) -> None:
        """Each model trained with each seed: seed by seed, so that what an interrupted run has can be compared."""
        assert self.config.quality is not None
        subjects = {subject_key(self.trials[key].subject): key for key in reversed(self._live()) if not self._is_control(key)}
        wanted = [(subject, seed) for seed in range(self.config.quality.seeds) for subject in reversed(subjects)]
        missing = self._untrained(wanted)
        self.watcher.begin(len(wanted))
        self.watcher.advance("already trained", len(wanted) - len(missing))
        while missing:
            self._train(missing, subjects, data)
            missing = self._untrained(wanted)

    def _untrained(self, wanted: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        known = self.store.qualities(self.run)
        return [(subject, seed) for subject, seed in wanted if seed not in known.get(subject, {})]

    def _train(self, missing: Sequence[tuple[str, int]], subjects: Mapping[str, str], data: str) -> None:
        jobs = (
            replace(self._job("train", [subjects[subject]]), seed=seed, quality=self.config.quality, data=data)
            for subject, seed in missing
        )
        for job, message in self._run(jobs):
            subject, told = subject_key(job.trials[0].subject), str(job.trials[0])
            if isinstance(message, Trained):
                facts = asdict(message)
                result = {name: facts[name] for name in ("steps", "seconds", "classes", "scores")}
                self.store.add_quality(self.run, subject, message.seed, result)
                self.watcher.advance(f"trained {told} with seed {message.seed}: mIoU {message.scores['miou']:.3f}")
            elif isinstance(message, Failed):
                self.store.add_quality(self.run, subject, job.seed, None, failure=message.kind, error=message.error)
                self.watcher.advance(f"training {told} with seed {job.seed} failed")
                self.watcher.say(f"FAILED training {told} with seed {job.seed}: {message.error.splitlines()[0]}")

    def _unfinished(self) -> list[StoredGroup]:
        live, groups = self._live(), self.store.groups(self.run)
        unfinished = [group for group in groups if not group.stopped and not live.keys().isdisjoint(group.trials)]
        self.groups = {group.number: group.trials for group in unfinished}
        return unfinished

    def _group(self) -> None:
        """Choose which trials are measured together, once: a run that goes on keeps its groups."""
        live = self._live()
        grouped = {key for group in self.store.groups(self.run) for key in group.trials}
        for block in blocks_of(list(self.trials.values())):
            if grouped.isdisjoint(trial.key for trial in block):
                self.store.add_groups(
                    self.run,
                    packed(
                        [trial for trial in block if trial.key in live],
                        {key: stored.cost.live_bytes for key, stored in live.items() if stored.cost},
                        most=self.config.group_size,
                        room=available_bytes(self.device) // 2,
                    ),
                )

    def _rounds_of(self, group: StoredGroup) -> Job:
        keys = self._members(group.trials)
        place = group.place if group.place is not None else self.here
        is_rated = (place, self.trials[keys[0]].dtype) in self.store.rates(self.run)
        if not self.unpickled.isdisjoint(keys):
            for key in keys:
                self.store.add_note(self.run, key, IN_PROCESS)
        return replace(
            self._job("rounds", keys),
            group=group.number,
            baseline=next((key for key in keys if self.trials[key].role == "baseline"), None),
            plan=rounds_plan(self.config),
            cold=tuple(key for key in keys if self.stored[key].alone is None and not self._is_control(key)),
            taken={key: [taken.seconds for _, taken in sorted(group.samples.get(key, {}).items())] for key in keys},
            first=group.rounds,
            spent=sum(conditions.get("seconds") or 0.0 for conditions in group.conditions),
            place=digest(group.environment) if group.environment else "",
            rates=not is_rated,
        )

    def _record(self, job: Job, message: Message, ratios: dict[str, list[float]]) -> None:
        place = self.places.get(job.group, self.here)
        told = self._told_group(job)
        if isinstance(message, Rated):
            self.store.add_rate(self.run, place, message)
        elif isinstance(message, Alone):
            self._keep_alone(message, is_shared=True)
        elif isinstance(message, Working) and message.trial is None:
            self.watcher.advance(message.doing, 0)
        elif isinstance(message, Round):
            self.store.add_round(self.run, job.group, place, message)
            self.measured += sum(sample.calls * sample.seconds for sample in message.samples)
            self._add_ratios(job, message, ratios)
            self.watcher.advance(f"{told}: round {message.number + 1}{self._best(ratios)}")
        elif isinstance(message, Stopped):
            self.store.stop_group(self.run, job.group, place, message.reason)
            self.watcher.advance(told, rounds_plan(self.config).maximum - message.rounds)
            self.watcher.log(f"{told}: {message.rounds} rounds ({message.reason}){self._best(ratios)}")
        elif isinstance(message, Failed):
            self._fail_in_group(job, message)

    def _fail_in_group(self, job: Job, failed: Failed) -> None:
        """A trial that fitted alone and runs out of memory beside others is measured once more without them."""
        keys = self.groups[job.group]
        members = [key for key in self._members(keys) if self.trials[key].role == "candidate"]
        if failed.kind == "out of memory" and len(members) > 1 and failed.trial in members:
            ends = [key for key in keys if self.trials[key].role != "candidate"]
            others = [key for key in keys if key != failed.trial]
            self.groups[job.group] = tuple(others)
            self.store.replace_group(self.run, job.group, [others, [*ends[:1], failed.trial, *ends[1:]]])
            self.watcher.say(f"{self._told(failed.trial)} ran out of memory beside others, and is measured without them.")
        else:
            self._fail(failed)

    def _run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Do jobs and tell what is worked on; those that only this process can do come last."""
        left: list[Job] = []

        def elsewhere() -> Iterator[Job]:
            for job in jobs:
                if self.unpickled.isdisjoint(trial.key for trial in job.trials):
                    yield job
                else:
                    left.append(job)

        for job, message in chain(self.executor.run(elsewhere()), do_here(left)):
            if isinstance(message, Placed):
                self.places[job.group] = self.store.place(self.run, message.environment)
            else:
                if isinstance(message, Working) and job.kind != "rounds":
                    self.watcher.advance(f"{message.doing}: {self._told(message.trial)}", 0)
                yield job, message

    def _job(self, kind: JobKind, keys: Iterable[str]) -> Job:
        return Job(
            kind=kind,
            device=str(self.device),
            trials=tuple(self.trials[key] for key in keys),
            plugins=tuple(self.config.plugins),
            threads=torch.get_num_threads(),
            warmup=self.config.warmup,
            seed=self.config.seed,
        )

    def _live(self) -> dict[str, StoredTrial]:
        """Return the trials that have not failed; a control is worth nothing without its baseline."""
        return {key: stored for key, stored in self.stored.items() if self._is_live(key)}

    def _is_live(self, key: str) -> bool:
        baseline = self.baselines.get(key, key)
        return not self.stored[key].error and not self.stored[baseline].error

    def _missing(self, fact: str) -> list[str]:
        """Return the live trials without a fact; the control shares its baseline's."""
        live = self._live().items()
        return [key for key, stored in live if getattr(stored, fact) is None and not self._is_control(key)]

    def _is_control(self, key: str) -> bool:
        return self.trials[key].role == "control"

    def _members(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if self._is_live(key)]

    def _fail(self, failed: Failed) -> None:
        self.store.add_failure(self.run, failed)
        self._remember(failed.trial, failure=failed.kind, error=failed.error)
        self.watcher.say(f"FAILED {self._told(failed.trial)}: {failed.error.splitlines()[0]}")

    def _add_ratios(self, job: Job, done: Round, ratios: dict[str, list[float]]) -> None:
        base = next((sample.seconds for sample in done.samples if sample.trial == job.baseline), None)
        if base is not None:
            for sample in done.samples:
                ratios.setdefault(sample.trial, []).append(sample.seconds / base)

    def _best(self, ratios: Mapping[str, Sequence[float]]) -> str:
        """Say which candidate is the fastest so far."""
        medians = {
            key: statistics.median(each) for key, each in ratios.items() if each and self.trials[key].role == "candidate"
        }
        best = min(medians, key=lambda key: medians[key], default=None)
        return f"; best so far {self.trials[best]}, {medians[best]:.2f} x baseline" if best else ""

    def _told(self, key: str | None) -> str:
        trial = self.trials.get(key or "")
        return f"{told_dimensions(trial)}: {trial}" if trial else ""

    def _told_group(self, job: Job) -> str:
        return f"{told_dimensions(job.trials[0])} ({len(job.trials)} models)"


def _ratios_to(taken: Mapping[str, Sequence[float]], baseline: str | None) -> dict[str, list[float]]:
    base = taken.get(baseline or "", [])
    return {key: [own / other for own, other in zip(each, base, strict=False)] for key, each in taken.items()}
