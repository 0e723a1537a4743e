"""The work of one measuring process: the `Job` that describes the work, and the functions that do it and yield messages."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F

from zoo.benchmark.measuring.clock import calls_to_fill_a_slot, read_clock, time_calls
from zoo.benchmark.measuring.conditions import Reading, conditions_between
from zoo.benchmark.measuring.cost import static_cost
from zoo.benchmark.measuring.failures import failure_of, format_error
from zoo.benchmark.measuring.memory import (
    allocated_bytes,
    peak_allocated_bytes,
    peak_resident_bytes,
    reset_peaks,
    resident_bytes,
)
from zoo.benchmark.measuring.operation_times import time_operations
from zoo.benchmark.measuring.peak_rates import measure_rates
from zoo.benchmark.measuring.steps import Step, build_subject, make_step
from zoo.benchmark.messages import Activity, ColdStart, GroupEnd, Message, Round, Sample, TrialCost, UnknownCost, message_to
from zoo.benchmark.quality import QualityEntry
from zoo.benchmark.rounds import RoundsPlan
from zoo.benchmark.trial import Trial
from zoo.common.devices import is_out_of_memory, is_usable
from zoo.common.foreign_code import no_exits
from zoo.errors import ZooError
from zoo.registry.plugin_files import load_plugin_file

__all__ = ["Job", "JobKind", "do_job"]

JobKind: TypeAlias = Literal["count", "cold start", "operations", "rounds", "train"]

STEADY_CALLS = 3
HOG_BYTES = 2**28
"""A limit in bytes that decides which trial is blamed if the process runs out of memory.

The trial that made the process grow most is blamed if it made the process grow by more than this limit. Otherwise, the running
trial is blamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The work of one measuring process.

    Attributes:
        kind: "count" computes the trials' costs (`StaticCost`), "cold start" measures one trial in a process of its own,
            "operations" times the operations of the trials, "rounds" measures the trials as one interleaved group, and "train"
            trains one trial's model.
        device: the name of a torch device.
        trials: the trials, in the order in which their models are built.
        plugins: the paths of the files that register encoders or decoders.
        threads: the number of torch's CPU threads.
        warmup: the number of calls of each trial before the rounds.
        seed: the seed of the weights, of the order of the trials in a round, and of the training.
        group: the group's number in the store; -1 for a job without a group.
        baseline: the key of the trial that the other trials are compared with; None if there is none.
        cold_starts: the keys of the trials whose cold start and memory are measured when the group's models are built.
        plan: the rule that decides when the rounds end; None unless `kind` is "rounds".
        taken: a mapping from each trial's key to its seconds per call, one number for each round that is already measured.
        first: the number of the first round of this job.
        spent: the seconds that the rounds before this job took.
        environment: the digest of the environment of the earlier rounds; "" if there are none. If the job runs in a different
            environment, the rounds start again.
        rates: whether to measure first how many FLOPs per second the device can reach (`KernelRate`).
        quality: the data and the settings for training; None unless `kind` is "train".
        data: the digest of the training data.
        folder: the folder of the training's checkpoints, from which training goes on; "" to train from the beginning.
    """

    kind: JobKind
    device: str
    trials: tuple[Trial, ...] = ()
    plugins: tuple[str, ...] = ()
    threads: int = 1
    warmup: int = 1
    seed: int = 0
    group: int = -1
    baseline: str | None = None
    cold_starts: tuple[str, ...] = ()
    plan: RoundsPlan | None = None
    taken: Mapping[str, list[float]] = field(default_factory=dict)
    first: int = 0
    spent: float = 0.0
    environment: str = ""
    rates: bool = False
    quality: QualityEntry | None = None
    data: str = ""
    folder: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the job as a JSON-serializable dictionary."""
        quality = self.quality.model_dump(mode="json") if self.quality else None
        return {**asdict(self), "trials": [trial.as_dict() for trial in self.trials], "quality": quality}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Job:
        """Return the job that `as_dict` converted to a dictionary."""
        read = {
            "trials": tuple(Trial.from_dict(trial) for trial in facts["trials"]),
            "plugins": tuple(facts["plugins"]),
            "cold_starts": tuple(facts["cold_starts"]),
            "plan": RoundsPlan(**facts["plan"]) if facts["plan"] else None,
            "quality": QualityEntry.model_validate(facts["quality"]) if facts["quality"] else None,
        }
        return cls(**{**facts, **read})

    def messages(self) -> Iterator[Message]:
        """Do the work and yield its messages. If a trial raises an exception, yield a `Failure` and go on to the next trial."""
        device = torch.device(self.device)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        for plugin in self.plugins:
            load_plugin_file(Path(plugin))
        if self.kind == "count":
            yield from _compute_costs(self.trials, device)
        elif self.kind == "cold start":
            yield from _measure_alone(self.trials[0], device, self.seed)
        elif self.kind == "operations":
            yield from time_operations(self.trials, device, self.seed)
        elif self.kind == "train":
            assert self.quality is not None
            from zoo.benchmark.measuring.training import (
                train_and_test,  # imports Lightning, which takes seconds and which no other job needs
            )

            yield from train_and_test(
                self.trials[0],
                self.quality,
                digest=self.data,
                device=device,
                seed=self.seed,
                folder=Path(self.folder) if self.folder else None,
            )
        else:
            if self.rates:
                yield from _measure_rates(device, self.trials[0].dtype)
            yield from _Rounds(self, device).messages()


def do_job(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Do a job and yield its messages. The job and the messages are dictionaries, since this runs in a child process."""
    for message in Job.from_dict(job).messages():
        yield message_to(message)


def _compute_costs(trials: tuple[Trial, ...], device: torch.device) -> Iterator[Message]:
    """Compute the costs of each trial that need no measurement, such as its FLOPs.

    If a model can be built, but can be run neither on the meta device nor on the CPU, its costs are reported as unknown, since
    the model may still run on `device`. If memory runs out, this is reported as a failure.
    """
    for trial in trials:
        yield Activity(trial=trial.key, doing="counting")
        try:
            cost = static_cost(trial, device)
        except ZooError as cause:
            yield failure_of(trial, cause)
        except Exception as cause:  # noqa: BLE001 - a plugin's model may raise anything
            if is_out_of_memory(cause):
                yield failure_of(trial, cause)
            else:
                yield UnknownCost(trial=trial.key, reason=format_error(cause))
        else:
            yield TrialCost(trial=trial.key, cost=cost)


def _measure_alone(trial: Trial, device: torch.device, seed: int) -> Iterator[Message]:
    """Measure the cold start of one trial, a few later calls, and how much memory the trial uses."""
    try:
        yield Activity(trial=trial.key, doing="importing")
        with suppress(Exception), torch.device("meta"):
            build_subject(trial)  # imports all that the model needs, so that imports do not count as cold start or memory
        _load_libraries(device)
        yield from _measure_cold_start(trial, device, seed)
    except Exception as cause:  # noqa: BLE001 - any exception of a plugin's model is shown in its row
        yield failure_of(trial, cause)


def _measure_cold_start(trial: Trial, device: torch.device, seed: int) -> Generator[Message, None, Step]:
    """Build a trial's model, call it a few times, yield a `ColdStart` with the times and the memory, and return the `Step`."""
    reset_peaks(device)
    resident, allocated = resident_bytes(), allocated_bytes(device)
    torch.manual_seed(seed)
    yield Activity(trial=trial.key, doing="building")
    began = read_clock(device)
    step = make_step(build_subject(trial), trial, device)
    built = read_clock(device) - began
    yield Activity(trial=trial.key, doing="first call")
    first = time_calls(step, 1, device)
    steady = []
    for _ in range(STEADY_CALLS):
        yield Activity(trial=trial.key, doing="next calls")
        steady.append(time_calls(step, 1, device).seconds)
    peak_resident, peak_allocated = peak_resident_bytes(), peak_allocated_bytes(device)
    yield ColdStart(
        trial=trial.key,
        batch=trial.batch,
        build_seconds=built,
        first_seconds=first.seconds,
        seconds=min(steady),
        rss_bytes=None if peak_resident is None else max(0, peak_resident - resident),
        # the weights of the group's other models are on the device, too, and are subtracted
        allocated_bytes=None if peak_allocated is None or allocated is None else peak_allocated - allocated,
    )
    return step


def _load_libraries(device: torch.device) -> None:
    """Load an accelerator's libraries for convolutions and matrix products, so that no cold start includes the loading time."""
    if device.type == "cpu":
        return
    image, weight = (torch.ones(shape, device=device, requires_grad=True) for shape in ((1, 8, 8, 8), (8, 8, 3, 3)))
    rows = F.conv2d(image, weight).flatten(1)
    (rows.T @ rows).sum().backward()  # type: ignore[no-untyped-call]


def _measure_rates(device: torch.device, dtype: str) -> Iterator[Message]:
    yield Activity(trial=None, doing=f"measuring the device's best rates in {dtype}")
    with suppress(RuntimeError):  # the device is too small or too new for one of the kernels; the remaining rates are left out
        yield from measure_rates(device, dtype)


class _Rounds:
    """Measures a group in rounds, each of which times every trial once. All models are on the device at the same time."""

    def __init__(self, job: Job, device: torch.device) -> None:
        assert job.plan is not None
        self.job = job
        self.plan = job.plan
        self.device = device
        self.ready: dict[str, tuple[Step, int]] = {}
        self.taken = {trial.key: list(job.taken.get(trial.key, ())) for trial in job.trials}
        self.grown: dict[str, int] = {}

    def messages(self) -> Iterator[Message]:
        """Build the models, measure the rounds, and yield the messages.

        If a trial leaves the device unusable, the messages end without a `GroupEnd`, and a new process continues the group.
        """
        _load_libraries(self.device)
        for trial in self.job.trials:
            yield Activity(trial=trial.key, doing="warming up", hog=self._hog())
            with self._watch_growth(trial):
                try:
                    yield from self._prepare(trial)
                except Exception as cause:  # noqa: BLE001 - any exception of a plugin's model is shown in its row
                    yield failure_of(trial, cause)
                    if not is_usable(self.device):
                        return
        self.grown.clear()  # building a model needs memory; only growth during the rounds is a leak
        number, seconds = self.job.first, self.job.spent
        while self.ready:
            # A trial that failed neither prolongs the rounds nor serves as the baseline.
            samples = {key: self.taken[key] for key in self.ready}
            baseline = self.job.baseline if self.job.baseline in self.ready else None
            reason = self.plan.stop(samples, baseline, rounds=number, seconds=seconds)
            if reason:
                yield GroupEnd(reason=reason, rounds=number)
                return
            round = yield from self._measure_round(number)
            if round is None:
                return
            yield round
            seconds += round.conditions["seconds"] or 0.0
            number += 1

    def _prepare(self, trial: Trial) -> Iterator[Message]:
        """Build a trial's model and warm it up. Measure its cold start and memory if the job requests them."""
        if trial.key in self.job.cold_starts:
            step = yield from _measure_cold_start(trial, self.device, self.job.seed)
        else:
            torch.manual_seed(self.job.seed)
            step = make_step(build_subject(trial), trial, self.device)
        with no_exits("A call of the model"):
            for _ in range(self.job.warmup):
                step()
        self.ready[trial.key] = (step, calls_to_fill_a_slot(time_calls(step, 1, self.device).seconds))

    def _measure_round(self, number: int) -> Generator[Message, None, Round | None]:
        """Measure each trial once and return the round; None if a trial left the device unusable.

        If a trial fails, this round and all later rounds leave it out. The order of the trials depends only on the seed and on
        the number of the round.
        """
        order = [trial for trial in self.job.trials if trial.key in self.ready]
        random.Random(f"{self.job.seed}:{number}").shuffle(order)
        samples = []
        before, began = Reading.now(), time.perf_counter()
        for slot, trial in enumerate(order):
            yield Activity(trial=trial.key, doing=f"round {number + 1}", hog=self._hog())
            step, calls = self.ready[trial.key]
            with self._watch_growth(trial):
                try:
                    timing = time_calls(step, calls, self.device)
                except Exception as cause:  # noqa: BLE001 - any exception of a plugin's model is shown in its row
                    del self.ready[trial.key]
                    yield failure_of(trial, cause)
                    if not is_usable(self.device):
                        return None
                else:
                    seconds, busy_seconds = timing.seconds, timing.busy_seconds
                    samples.append(Sample(trial=trial.key, slot=slot, calls=calls, seconds=seconds, busy_seconds=busy_seconds))
        elapsed = time.perf_counter() - began
        conditions = conditions_between(before, Reading.now()).as_dict() | {"seconds": elapsed}
        for sample in samples:
            self.taken[sample.trial].append(sample.seconds)
        return Round(number=number, samples=tuple(samples), conditions=conditions)

    @contextmanager
    def _watch_growth(self, trial: Trial) -> Iterator[None]:
        """Measure the growth of the process's resident memory in the `with` block, and add it to the trial's total."""
        before = resident_bytes()
        try:
            yield
        finally:
            self.grown[trial.key] = self.grown.get(trial.key, 0) + resident_bytes() - before

    def _hog(self) -> str | None:
        """Return the key of the trial that made the process grow most; None if no trial added more than `HOG_BYTES`."""
        hog = max(self.grown, key=lambda key: self.grown[key], default=None)
        return hog if hog and self.grown[hog] > HOG_BYTES else None
