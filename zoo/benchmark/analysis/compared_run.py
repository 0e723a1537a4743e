"""Read one of the two runs of a comparison: its trials with their samples, and its environments. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from zoo.benchmark.rounds import plan_of
from zoo.benchmark.store.records import StoredGroup, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.quality import data_content
from zoo.benchmark.trial import Trial, format_block

__all__ = ["By", "Change", "ComparedRun", "find_differences"]

By: TypeAlias = Literal["ratio", "latency"]
"""What is compared: the ratio of a trial's time to the baseline's time in the same round, or the trial's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A property of the two runs, and its value in the earlier and in the later run; None for a run without this property."""

    fact: str
    before: float | str | None
    after: float | str | None


class ComparedRun:
    """One of the two runs of a comparison. A trial that both runs contain has the same name in both.

    A name is a hash of the fields of the trial. The name does not depend on whether the trial is the baseline, since the two
    runs may have different baselines. A control, which is a copy of the baseline, has a name of its own.
    """

    def __init__(self, store: Store, run: int) -> None:
        self.run = store.run(run)
        self.confidence = plan_of(self.run.config).confidence
        self.groups = [group for group in store.groups(run) if group.samples]
        self.stored: dict[str, StoredTrial] = {}
        self.trials: dict[str, Trial] = {}
        for stored in store.trials(run):
            trial = stored.trial
            name = trial.key if trial.role == "control" else replace(trial, role="candidate").key
            self.stored[name], self.trials[name] = stored, trial
        self.failed = {name: stored.error for name, stored in self.stored.items() if stored.error}

    def baseline(self, block: tuple[Any, ...]) -> str | None:
        """Return the name of a block's baseline; None if the block has none."""
        return next((name for name, trial in self.trials.items() if trial.role == "baseline" and trial.block == block), None)

    def groups_of(self, name: str) -> list[StoredGroup]:
        """Return the groups that measured a trial."""
        return [group for group in self.groups if self.stored[name].key in group.samples]

    def samples(self, name: str, by: By, groups: Sequence[StoredGroup] | None = None) -> list[float]:
        """Return a trial's latencies, or their ratios to the baseline's latency in the same round.

        Args:
            name: the name of the trial.
            by: "latency" or "ratio".
            groups: the groups to read; by default all groups that measured the trial.
        """
        key, baseline = self.stored[name].key, self.baseline(self.trials[name].block)
        values: list[float] = []
        for group in self.groups_of(name) if groups is None else groups:
            if by == "latency":
                values += [timing.seconds for _, timing in sorted(group.samples[key].items())]
            elif baseline:
                values += group.ratios(key, self.stored[baseline].key)
        return values

    def __str__(self) -> str:
        blocks = dict.fromkeys(format_block(trial.block) for trial in self.trials.values())
        return f"{sum(trial.role != 'control' for trial in self.trials.values())} trials: {'; '.join(blocks)}"


def find_differences(old: ComparedRun, new: ComparedRun) -> Iterator[Change]:
    """Yield each property that differs between the runs' environments (machine and software), plugin files and data."""
    before, after = _collect_facts(old), _collect_facts(new)
    for fact in dict.fromkeys((*before, *after)):
        if before.get(fact) != after.get(fact):
            yield Change(fact=fact, before=before.get(fact), after=after.get(fact))


def _collect_facts(run: ComparedRun) -> dict[str, str]:
    values: dict[str, dict[str, None]] = {}
    environments = [group.environment for group in run.groups if group.environment]
    for environment in environments or [run.run.environment]:
        for name, value in (environment | environment["versions"]).items():
            if name != "versions":
                values.setdefault(name, {})[str(value)] = None
    facts = {name: " and ".join(each) for name, each in values.items()}
    facts |= {f"content of {path}": content for path, content in dict(run.run.config["plugins"]).items()}
    if content := data_content(run.run):
        facts["data trained on"] = f"{PurePath(run.run.config['quality']['data']['source']).name} ({content[:12]})"
    return facts
