"""One of two runs that are compared: its trials, their samples, and where they were measured. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from zoo.benchmark.rounds import plan_of
from zoo.benchmark.store.records import StoredGroup, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.quality import data_content
from zoo.benchmark.trial import Trial, told_block

__all__ = ["By", "ComparedRun", "differing"]

By: TypeAlias = Literal["ratio", "latency"]
"""What of a trial's time is compared: its ratio to the baseline's of the same round, or the time itself."""


class ComparedRun:
    """A run, with its trials under names that other runs share.

    A name is a hash of all that defines the trial but whether it is the baseline, which is no fact of the model.
    """

    def __init__(self, store: Store, run: int) -> None:
        self.run = store.run(run)
        self.confidence = plan_of(self.run.config).confidence
        self.groups = [group for group in store.groups(run) if group.samples]
        self.stored: dict[str, StoredTrial] = {}
        self.trials: dict[str, Trial] = {}
        for stored in store.trials(run):
            trial = Trial.from_dict(stored.facts)
            name = trial.key if trial.role == "control" else replace(trial, role="candidate").key
            self.stored[name], self.trials[name] = stored, trial
        self.failed = {name: stored.error for name, stored in self.stored.items() if stored.error}

    def baseline(self, block: tuple[Any, ...]) -> str | None:
        """Return the name of the trial that the others of a block were compared with."""
        return next((name for name, trial in self.trials.items() if trial.role == "baseline" and trial.block == block), None)

    def groups_of(self, name: str) -> list[StoredGroup]:
        """Return the groups that measured a trial."""
        return [group for group in self.groups if self.stored[name].key in group.samples]

    def samples(self, name: str, by: By, groups: Sequence[StoredGroup] | None = None) -> list[float]:
        """Return a trial's latencies, or their ratios to the baseline's in the same round; of some groups, or of all."""
        key, baseline = self.stored[name].key, self.baseline(self.trials[name].block)
        found = []
        for group in self.groups_of(name) if groups is None else groups:
            taken = group.samples[key]
            base = group.samples.get(self.stored[baseline].key, {}) if baseline else {}
            if by == "latency":
                found += [taken[number].seconds for number in sorted(taken)]
            else:
                found += [taken[number].seconds / base[number].seconds for number in sorted(taken.keys() & base.keys())]
        return found

    def environments(self) -> list[dict[str, Any]]:
        """Return where the run was measured."""
        return [group.environment for group in self.groups if group.environment] or [self.run.environment]

    def __str__(self) -> str:
        told = {told_block(trial.block): None for trial in self.trials.values()}
        return f"{len([trial for trial in self.trials.values() if trial.role != 'control'])} trials: {'; '.join(told)}"


def differing(one: ComparedRun, other: ComparedRun) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each fact of where two runs were measured, and of the plugin files they used, that differs: name, one, other."""
    facts, others = _facts(one), _facts(other)
    for fact in dict.fromkeys((*facts, *others)):
        if facts.get(fact) != others.get(fact):
            yield fact, facts.get(fact), others.get(fact)


def _facts(run: ComparedRun) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for environment in run.environments():
        flat = {name: value for name, value in environment.items() if name != "versions"} | environment.get("versions", {})
        for name, value in flat.items():
            found.setdefault(name, {})[str(value)] = None
    files = run.run.config.get("plugins")
    told = {f"content of {path}": content for path, content in (files if isinstance(files, dict) else {}).items()}
    if content := data_content(run.run):
        told["data trained on"] = f"{PurePath(run.run.config['quality']['data']['source']).name} ({content[:12]})"
    return {name: " and ".join(values) for name, values in found.items()} | told
