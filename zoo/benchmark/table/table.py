"""Make the table of stored runs: collect the results of each trial, and compute the statistics of its samples. Torch-free."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from zoo.benchmark.measuring.conditions import Conditions, describe_noise
from zoo.benchmark.quality import Quality
from zoo.benchmark.rounds import plan_of
from zoo.benchmark.store.records import StoredGroup, StoredRun, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.document import document
from zoo.benchmark.table.quality import Qualities, data_names
from zoo.benchmark.table.rows import Check, Results, Row
from zoo.benchmark.trial import Reference, Role, Trial, subject_key
from zoo.common.statistics import Estimate, estimate_median, outliers, percentile_90
from zoo.errors import ZooError
from zoo.pairing.pairing import Pairing
from zoo.registry.licenses import licenses_of
from zoo.registry.registry import default_registry

__all__ = ["Table", "table_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Results):
    """The results of one or more runs. `str()` returns the table as text."""

    def __str__(self) -> str:
        return str(document(self))


def table_of(store: Store, *runs: int) -> Table:
    """Return the table of one or more runs, in the given order. An unfinished run is shown as far as it was measured."""
    stored = tuple(store.run(run) for run in runs)
    names = data_names(stored)
    parts = [_RunTable(store, run, names.get(run.id, "")) for run in stored]
    return Table(
        runs=stored,
        rows=tuple(row for part in parts for row in part.rows()),
        checks=tuple(check for part in parts for check in part.checks()),
        rates={dtype: rate for part in parts for dtype, rate in part.format_rates().items()},
        store=str(store.path),
        floors=tuple(floor for part in parts for floor in part.qualities.floors),
    )


class _RunTable:
    """The stored results of one run, and the rows that are computed from them."""

    def __init__(self, store: Store, run: StoredRun, data: str) -> None:
        self.run = run
        self.confidence = plan_of(run.config).confidence
        self.groups = store.groups(run.id)
        self.rates = store.rates(run.id)
        self.stored = {stored.key: stored for stored in store.trials(run.id)}
        self.qualities = Qualities(store, run, data)
        trials = [stored.trial for stored in self.stored.values()]
        self.baselines = {trial.block: trial.subject for trial in trials if trial.role == "baseline"}
        self.differences = self.qualities.differences(
            (trial.subject, self.baselines[trial.block]) for trial in trials if trial.block in self.baselines
        )
        # With these indices, the time to make the table is proportional to the number of trials, and not to its square.
        self.groups_of: dict[str, list[StoredGroup]] = defaultdict(list)
        self.roles: dict[tuple[int, Role], str] = {}
        for group in self.groups:
            for key in group.trials:
                self.groups_of[key].append(group)
                self.roles.setdefault((group.number, self.stored[key].trial.role), key)

    def rows(self) -> list[Row]:
        return [self._row(stored) for stored in self.stored.values() if stored.trial.role != "control"]

    def checks(self) -> list[Check]:
        """Return an A/A check for each group that measured both its baseline and the control, a copy of the baseline."""
        checks = []
        for group in self.groups:
            control = self.roles.get((group.number, "control"))
            ratio = self._ratio([group], control) if control else None
            if control and ratio:
                trials = [self.stored[key].trial for key in group.trials]
                names = tuple(str(trial) for trial in trials if trial.role == "candidate")
                checks.append(Check(block=(self.run.id, *self.stored[control].trial.block), ratio=ratio, names=names))
        return checks

    def format_rates(self) -> dict[str, str]:
        """Return the device's best rate for each dtype, as text with the name of the kernel that reached it."""
        return {dtype: f"{rate.flops_per_second / 1e9:,.0f} GFLOP/s ({rate.kernel})" for (_, dtype), rate in self.rates.items()}

    def _row(self, stored: StoredTrial) -> Row:
        trial, cost, cold_start = stored.trial, stored.cost, stored.cold_start
        pairing = None if isinstance(trial.subject, Reference) else trial.subject
        groups = [group for group in self.groups_of[stored.key] if stored.key in group.samples]
        environment = next((group.environment for group in groups if group.environment), self.run.environment)
        timings = [timing for group in groups for timing in group.samples[stored.key].values()]
        # If a trial failed after some rounds, the samples of these rounds are not shown, since the trial has no valid result.
        is_measured = bool(timings) and not stored.error
        seconds = [timing.seconds for timing in timings] if is_measured else []
        busy = [timing.busy_seconds for timing in timings if timing.busy_seconds is not None] if is_measured else []
        achieved = cost.step_flops / statistics.median(seconds) if seconds and cost and cost.step_flops is not None else None
        best = self._best_rate(groups, trial.dtype)
        quality, baseline = self.qualities.of(trial.subject), self.baselines.get(trial.block)
        return Row(
            run=self.run.id,
            key=stored.key,
            name=str(trial),
            encoder=pairing.encoder if pairing else "",
            decoder=pairing.decoder if pairing else "",
            code=_code(pairing, trial) if pairing else "",
            mode=trial.mode,
            batch=trial.batch,
            height=trial.height,
            width=trial.width,
            device=environment["device"],
            device_name=environment["device_name"],
            dtype=trial.dtype,
            memory_format=trial.memory_format,
            runtime=trial.runtime,
            role=trial.role,
            latency=estimate_median(seconds, self.confidence) if seconds else None,
            p90=percentile_90(seconds) if seconds else None,
            busy=estimate_median(busy, self.confidence) if busy else None,
            ratio=self._ratio(groups, stored.key) if is_measured else None,
            busy_ratio=self._ratio(groups, stored.key, "busy_seconds") if busy else None,
            rounds=len(timings),
            stopped=groups[-1].stopped if groups else None,
            live_bytes=cost.live_bytes if cost else None,
            allocated_bytes=cold_start.allocated_bytes if cold_start else None,
            rss_bytes=cold_start.rss_bytes if cold_start else None,
            parameters=cost.parameters if cost else None,
            parts=cost.parts if cost else None,
            flops=cost.flops if cost else None,
            flops_per_second=achieved,
            efficiency=achieved / best if achieved and best else None,
            build_seconds=cold_start.build_seconds if cold_start else None,
            first_seconds=cold_start.first_seconds if cold_start else None,
            smaller=stored.smaller_batch,
            plan=cost.plan if cost else None,
            failure=stored.failure,
            error=stored.error,
            flags=self._flags(stored, groups, seconds, quality),
            licenses=_licenses(trial),
            quality=quality,
            quality_difference=self.differences.get((subject_key(trial.subject), subject_key(baseline))) if baseline else None,
        )

    def _best_rate(self, groups: Sequence[StoredGroup], dtype: str) -> float | None:
        """Return the highest FLOP/s that a kernel reached with this dtype in the environments of these groups."""
        environments = {group.environment_id for group in groups}
        rates = (rate for (environment, _), rate in self.rates.items() if environment in environments and rate.dtype == dtype)
        return max((rate.flops_per_second for rate in rates), default=None)

    def _ratio(self, groups: Sequence[StoredGroup], key: str, fact: str = "seconds") -> Estimate | None:
        """Return the median ratio of a trial's time to the baseline's time, with its interval.

        Only the rounds that measured both trials are used.
        """
        ratios: list[float] = []
        for group in groups:
            baseline = self.roles.get((group.number, "baseline"))
            if baseline and not self.stored[baseline].error:
                ratios += group.ratios(key, baseline, fact)
        return estimate_median(ratios, self.confidence) if ratios else None

    def _flags(
        self, stored: StoredTrial, groups: Sequence[StoredGroup], seconds: Sequence[float], quality: Quality | None
    ) -> tuple[str, ...]:
        flags = list(stored.notes)
        if len(seconds) >= 6 and (count := outliers(seconds)):
            flags.append(f"{count} of {len(seconds)} samples are outliers")
        flags += describe_noise([_conditions(each) for group in groups for each in group.conditions])
        flags += self.qualities.flags(quality) if quality else ()
        return tuple(flags)


def _conditions(facts: Mapping[str, float | None]) -> Conditions:
    return Conditions(**{field.name: facts.get(field.name) for field in fields(Conditions)})


def _code(pairing: Pairing, trial: Trial) -> str:
    """Return the line of code that builds the measured model.

    An encoder that adapts to an image size was built for the trial's, unless the pairing has a size of its own.
    """
    try:
        adapts = default_registry().encoder(pairing.encoder).sizes(pairing.encoder_options).adapts
    except ZooError:  # the id is unknown in this process
        adapts = False
    return (replace(pairing, image_size=pairing.image_size or (trial.height, trial.width)) if adapts else pairing).code()


def _licenses(trial: Trial) -> str:
    """Return the licenses of a pairing as text; "" for a reference, or if an id is unknown in this process."""
    if isinstance(trial.subject, Reference):
        return ""
    pairing, registry = trial.subject, default_registry()
    try:
        return str(licenses_of(registry.encoder(pairing.encoder), registry.decoder(pairing.decoder), pairing.weights))
    except ZooError:
        return ""
