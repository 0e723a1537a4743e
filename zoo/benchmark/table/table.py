"""From stored runs to their table: the facts of each trial, and what follows from its samples. Torch-free."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from zoo.benchmark.measuring.conditions import Conditions, noise_of
from zoo.benchmark.quality import Quality
from zoo.benchmark.rounds import RoundsPlan, plan_of
from zoo.benchmark.store.records import StoredGroup, StoredRun, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.document import document
from zoo.benchmark.table.quality import Qualities, data_names
from zoo.benchmark.table.rows import Check, Results, Row, SmallerBatch
from zoo.benchmark.trial import Reference, Role, Trial
from zoo.common.statistics import Estimate, estimate_median, estimate_ratio, outliers, percentile_90
from zoo.errors import ZooError
from zoo.registry.licenses import licences_of
from zoo.registry.registry import default_registry

__all__ = ["Table", "table_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Results):
    """Rows of one run or several, with where they were measured; `str()` is the table as text."""

    def __str__(self) -> str:
        return str(document(self))


def table_of(store: Store, *runs: int) -> Table:
    """Return the table of some runs as far as they are measured, one below the other."""
    stored = tuple(store.run(run) for run in runs)
    names = data_names(stored)
    parts = [_Run(store, run, names.get(run.id, "")) for run in stored]
    return Table(
        runs=stored,
        rows=tuple(row for part in parts for row in part.rows()),
        checks=tuple(check for part in parts for check in part.checks()),
        rates={dtype: told for part in parts for dtype, told in part.told_rates().items()},
        store=str(store.path),
        floors=tuple(floor for part in parts for floor in part.qualities.floors),
    )


class _Run:
    """One run's groups and rates, and the rows that follow from them."""

    def __init__(self, store: Store, run: StoredRun, data: str) -> None:
        self.run = run
        self.plan: RoundsPlan = plan_of(run.config)
        self.groups = store.groups(run.id)
        self.rates = store.rates(run.id)
        self.stored = store.trials(run.id)
        self.trials = {stored.key: Trial.from_dict(stored.facts) for stored in self.stored}
        self.failed = {stored.key for stored in self.stored if stored.error}
        self.qualities = Qualities(store, run, data)
        self.baselines = {trial.block: trial.subject for trial in self.trials.values() if trial.role == "baseline"}
        # By trial and by group, so that the time grows with the number of trials and not with its square.
        self.groups_of: dict[str, list[StoredGroup]] = defaultdict(list)
        self.roles: dict[tuple[int, Role], str] = {}
        for group in self.groups:
            for key in group.trials:
                self.groups_of[key].append(group)
                self.roles.setdefault((group.number, self.trials[key].role), key)

    def rows(self) -> list[Row]:
        return [
            self._row(stored, self.trials[stored.key]) for stored in self.stored if self.trials[stored.key].role != "control"
        ]

    def checks(self) -> list[Check]:
        found = []
        for group in self.groups:
            control = self.roles.get((group.number, "control"))
            ratio = self._ratio([group], control) if control else None
            if control and ratio:
                names = tuple(str(self.trials[key]) for key in group.trials if self.trials[key].role == "candidate")
                found.append(Check(block=(self.run.id, *self.trials[control].block), ratio=ratio, names=names))
        return found

    def told_rates(self) -> dict[str, str]:
        return {dtype: f"{rate / 1e9:,.0f} GFLOP/s ({kernel})" for (_, dtype), (kernel, rate) in self.rates.items()}

    def _row(self, stored: StoredTrial, trial: Trial) -> Row:
        groups = [group for group in self.groups_of[stored.key] if stored.key in group.samples]
        taken = [each for group in groups for each in group.samples[stored.key].values()]
        is_measured = bool(taken) and not stored.error
        seconds = [each.seconds for each in taken] if is_measured else []
        busy = [each.busy_seconds for each in taken if each.busy_seconds is not None] if is_measured else []
        environment = next((group.environment for group in groups if group.environment), self.run.environment)
        pairing = None if isinstance(trial.subject, Reference) else trial.subject
        cost, alone = stored.cost, stored.alone or {}
        achieved = _achieved(stored, seconds)
        quality, baseline = self.qualities.of(trial.subject), self.baselines.get(trial.block)
        rated = [(group.place, trial.dtype) for group in groups if group.place is not None]
        best = max((self.rates[where][1] for where in rated if where in self.rates), default=None)
        return Row(
            run=self.run.id,
            key=stored.key,
            name=str(trial),
            encoder=pairing.encoder if pairing else "",
            decoder=pairing.decoder if pairing else "",
            code=pairing.code() if pairing else "",
            mode=trial.mode,
            batch=trial.batch,
            height=trial.height,
            width=trial.width,
            device=str(environment["device"]),
            device_name=str(environment["device_name"]),
            dtype=trial.dtype,
            memory_format=trial.memory_format,
            runtime=trial.runtime,
            role=trial.role,
            latency=estimate_median(seconds, self.plan.confidence) if seconds else None,
            p90=percentile_90(seconds) if seconds else None,
            busy=estimate_median(busy, self.plan.confidence) if busy else None,
            ratio=self._ratio(groups, stored.key) if is_measured else None,
            busy_ratio=self._ratio(groups, stored.key, "busy_seconds") if busy else None,
            rounds=len(taken),
            stopped=groups[-1].stopped if groups else None,
            live_bytes=cost.live_bytes if cost else None,
            allocated_bytes=alone.get("allocated_bytes"),
            rss_bytes=alone.get("rss_bytes"),
            parameters=cost.parameters if cost else None,
            parts=cost.parts if cost else None,
            flops=cost.flops if cost else None,
            flops_per_second=achieved,
            efficiency=achieved / best if achieved and best else None,
            build_seconds=alone.get("build_seconds"),
            first_seconds=alone.get("first_seconds"),
            smaller=_smaller(stored.smaller),
            plan=cost.plan if cost else None,
            failure=stored.failure,  # type: ignore[arg-type]
            error=stored.error,
            flags=self._flags(stored, groups, seconds, quality),
            licences=_licences(trial),
            quality=quality,
            quality_difference=self.qualities.difference(trial.subject, baseline) if quality and baseline else None,
        )

    def _ratio(self, groups: Sequence[StoredGroup], key: str, fact: str = "seconds") -> Estimate | None:
        """Return the ratio to the baseline, of all rounds that both were measured in."""
        pairs = []
        for group in groups:
            baseline = self.roles.get((group.number, "baseline"))
            if baseline is None or baseline in self.failed:
                continue
            base, own = group.samples.get(baseline, {}), group.samples.get(key, {})
            pairs += [(getattr(own[number], fact), getattr(base[number], fact)) for number in sorted(own.keys() & base.keys())]
        known = [(own, base) for own, base in pairs if own is not None and base]
        if not known:
            return None
        return estimate_ratio([own for own, _ in known], [base for _, base in known], self.plan.confidence)

    def _flags(
        self, stored: StoredTrial, groups: Sequence[StoredGroup], seconds: Sequence[float], quality: Quality | None
    ) -> tuple[str, ...]:
        flags = list(stored.notes)
        if len(seconds) >= 6 and (count := outliers(seconds)):
            flags.append(f"{count} of {len(seconds)} samples far out")
        flags += noise_of([_conditions(each) for group in groups for each in group.conditions])
        flags += self.qualities.flags(quality) if quality else ()
        return tuple(flags)


def _conditions(facts: Mapping[str, float | None]) -> Conditions:
    return Conditions(**{entry.name: facts.get(entry.name) for entry in fields(Conditions)})


def _achieved(stored: StoredTrial, seconds: Sequence[float]) -> float | None:
    if not seconds or stored.cost is None or stored.cost.step_flops is None:
        return None
    return stored.cost.step_flops / statistics.median(seconds)


def _smaller(facts: Mapping[str, Any] | None) -> SmallerBatch | None:
    return SmallerBatch(batch=facts["batch"], images_per_second=facts["batch"] / facts["seconds"]) if facts else None


def _licences(trial: Trial) -> str:
    """Return the licences of a pairing's parts, as far as its ids are known in this process."""
    if isinstance(trial.subject, Reference):
        return ""
    pairing, registry = trial.subject, default_registry()
    try:
        return str(licences_of(registry.encoder(pairing.encoder), registry.decoder(pairing.decoder), pairing.weights))
    except ZooError:
        return ""
