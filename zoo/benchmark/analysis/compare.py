"""Two runs of the same trials side by side: what became slower, larger or broken from the one to the other. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from zoo.benchmark.analysis.compared_run import By, ComparedRun, differing
from zoo.benchmark.store.records import StoredRun, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Reference, Trial, told_block
from zoo.common.statistics import TIE, Estimate, estimate_median, estimate_quotient
from zoo.errors import OptionError

__all__ = ["COSTS", "By", "Change", "Compared", "Comparison", "Failing", "Verdict", "compare"]

Verdict: TypeAlias = Literal["slower", "faster", "can't be told"]
VERDICTS: tuple[Verdict, ...] = ("slower", "faster", "can't be told")
"""In the order in which they are shown."""

COSTS = ("live_bytes", "parameters", "flops")
"""What follows from a trial's model alone."""

AGAINST_ITSELF = "A/A check: the baseline against itself, from run to run, where 1 is right:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A fact in either run; None where one of them lacks it."""

    fact: str
    before: float | str | None
    after: float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One trial that both runs measured.

    Attributes:
        trial: as the later run has it.
        by: what was compared: the ratio to the baseline of the same round, or the latency itself.
        before: the median of that, for the ratio a plain number, for the latency in seconds.
        quotient: after over before.
        costs: of the model, as far as they are known of both runs.
        is_gauge: a reference that is the baseline of a block compared by the ratio: its latency tells of the machine.
    """

    trial: Trial
    by: By
    before: Estimate
    after: Estimate
    quotient: Estimate
    costs: tuple[Change, ...]
    is_gauge: bool = False

    @property
    def changes(self) -> tuple[Change, ...]:
        """The costs that differ."""
        return tuple(cost for cost in self.costs if cost.before != cost.after)

    @property
    def verdict(self) -> Verdict:
        """What the interval says; only one that lies outside the band of ties says anything."""
        if self.quotient.is_tie:
            return "can't be told"
        return "slower" if self.quotient.low > TIE[1] else "faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A trial that failed in one of the runs, with its error."""

    trial: Trial
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed from one run to another.

    Attributes:
        compared: the trials that both measured, block by block.
        only_before: the trials that the later run does not have.
        fails_now: failed in the later run only; `failed_before`: in the earlier only; `fails_still`: in both.
        unmeasured: in both runs, but not measured to the end of a first round in one.
        differences: of where the runs were measured.
        warnings: what speaks against trusting the comparison.
        notes: how it was made.
    """

    before: StoredRun
    after: StoredRun
    compared: tuple[Compared, ...]
    only_before: tuple[Trial, ...]
    only_after: tuple[Trial, ...]
    fails_now: tuple[Failing, ...]
    failed_before: tuple[Failing, ...]
    fails_still: tuple[Failing, ...]
    unmeasured: tuple[Trial, ...]
    differences: tuple[Change, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    store: str

    @property
    def judged(self) -> tuple[Compared, ...]:
        """What was compared, without the references that tell of the machine alone."""
        return tuple(each for each in self.compared if not each.is_gauge)

    def slower_than(self, share: float) -> tuple[Compared, ...]:
        """Return what is slower by more than this share of its time, its whole interval."""
        return tuple(each for each in self.judged if each.quotient.low > 1 + share)


def compare(store: Store, before: int, after: int, *, by: By | None = None, anywhere: bool = False) -> Comparison:
    """Compare the trials that two runs share.

    Args:
        store: where both runs are.
        before: the number of the one run.
        after: of the other; quotients are its time over that of the one.
        by: "ratio" compares medians of the ratio to the baseline of the same round, so that how fast the machine was in
            either run cancels; "latency" compares medians of the latency. None: the ratio in each block in which both
            runs measured the same baseline, else the latency.
        anywhere: also compare what was measured on different devices.

    Raises:
        OptionError: the runs are one, share no trial, or no baseline where the ratio is asked for, or were measured on
            different devices.
    """
    if before == after:
        raise OptionError(f"Both are run {before}: a comparison takes two runs. `zoo runs` lists those of {store.path}.")
    old, new = ComparedRun(store, before), ComparedRun(store, after)
    shared = [name for name in new.trials if name in old.trials]
    if not shared:
        raise OptionError(f"Runs {before} and {after} share no trial.\n  run {before}: {old}\n  run {after}: {new}")
    if not anywhere:
        _check_devices(old, new, shared)
    reasons = {block: _without_ratio(old, new, block) for block in dict.fromkeys(new.trials[name].block for name in shared)}
    lacking = {block: reason for block, reason in reasons.items() if reason}
    if by == "ratio" and lacking:
        told = "\n".join(f"  {told_block(block)}: {reason}" for block, reason in lacking.items())
        raise OptionError(f"--by ratio takes a baseline that both runs measured; use --by latency.\n{told}")
    compared, unmeasured = [], []
    for name in shared:
        trial = new.trials[name]
        if trial.role == "control" or name in old.failed or name in new.failed:
            continue
        is_by_ratio = by != "latency" and trial.block not in lacking
        is_baseline = trial.role == "baseline"
        found = _compared(old, new, name, "ratio" if is_by_ratio and not is_baseline else "latency")
        if found:
            is_gauge = is_by_ratio and is_baseline and isinstance(trial.subject, Reference)
            compared.append(replace(found, is_gauge=is_gauge))
        else:
            unmeasured.append(trial)
    checks, warnings = _checks(old, new, list(reasons), [] if by == "latency" else [*reasons.keys() - lacking.keys()])
    notes = [f"{told_block(block)}: compared by latency, for {reason}." for block, reason in lacking.items() if by is None]
    failing = {name for name in shared if new.trials[name].role != "control"}
    return Comparison(
        before=old.run,
        after=new.run,
        compared=tuple(sorted(compared, key=lambda each: _place(each, list(reasons)))),
        only_before=tuple(trial for name, trial in old.trials.items() if name not in shared and trial.role != "control"),
        only_after=tuple(trial for name, trial in new.trials.items() if name not in shared and trial.role != "control"),
        fails_now=_failing(new, failing - old.failed.keys()),
        failed_before=_failing(old, failing - new.failed.keys()),
        fails_still=_failing(new, failing & old.failed.keys()),
        unmeasured=tuple(unmeasured),
        differences=tuple(Change(fact=fact, before=one, after=other) for fact, one, other in differing(old, new)),
        warnings=tuple(warnings),
        notes=(*notes, *checks),
        store=str(store.path),
    )


def _failing(run: ComparedRun, names: set[str]) -> tuple[Failing, ...]:
    """Return those of these trials that failed, with their errors, in the run's order."""
    return tuple(Failing(trial=run.trials[name], error=error) for name, error in run.failed.items() if name in names)


def _check_devices(old: ComparedRun, new: ComparedRun, shared: Sequence[str]) -> None:
    for name in shared:
        places = [{_device(group.environment or side.run.environment) for group in side.groups_of(name)} for side in (old, new)]
        if all(places) and places[0] != places[1]:
            one, other = (" and ".join(sorted(place)) for place in places)
            raise OptionError(
                f"Run {old.run.id} was measured on {one}, run {new.run.id} on {other}: a difference would be the devices', "
                "not the models'. --different-devices compares them all the same."
            )


def _device(environment: dict[str, Any]) -> str:
    threads = f" with {environment.get('threads')} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']} ({environment['device']}){threads}"


def _without_ratio(old: ComparedRun, new: ComparedRun, block: tuple[Any, ...]) -> str:
    """Return why the ratios of a block cannot be compared; "" where they can."""
    one, other = old.baseline(block), new.baseline(block)
    if one is None or other is None:
        return "one of the runs has no baseline there"
    if one != other:
        return f"the baselines differ ({old.trials[one]}, {new.trials[other]})"
    for side in (old, new):
        if one in side.failed or not side.groups_of(one):
            return f"the baseline failed or was not measured in run {side.run.id}"
    return ""


def _compared(old: ComparedRun, new: ComparedRun, name: str, by: By) -> Compared | None:
    before, after = old.samples(name, by), new.samples(name, by)
    if not before or not after:
        return None
    confidence = max(old.confidence, new.confidence)
    return Compared(
        trial=new.trials[name],
        by=by,
        before=estimate_median(before, confidence),
        after=estimate_median(after, confidence),
        quotient=estimate_quotient(after, before, confidence),
        costs=tuple(_costs(old.stored[name], new.stored[name])),
    )


def _costs(old: StoredTrial, new: StoredTrial) -> Iterator[Change]:
    for fact in COSTS:
        before, after = getattr(old.cost, fact, None), getattr(new.cost, fact, None)
        if before is not None and after is not None:
            yield Change(fact=fact, before=before, after=after)


def _place(compared: Compared, blocks: Sequence[tuple[Any, ...]]) -> tuple[int, bool, int]:
    """Return where a row stands: block by block, the baseline first, then by verdict."""
    is_baseline = compared.trial.role == "baseline"
    return blocks.index(compared.trial.block), not is_baseline, VERDICTS.index(compared.verdict)


def _checks(
    old: ComparedRun, new: ComparedRun, blocks: Sequence[tuple[Any, ...]], by_ratio: Sequence[tuple[Any, ...]]
) -> tuple[list[str], list[str]]:
    """Return what the baseline against itself says, as notes and as warnings: within each run, and from run to run."""
    warnings = []
    for side in (old, new):
        for name, trial in side.trials.items():
            is_asked = trial.role == "control" and trial.block in blocks
            for group in side.groups_of(name) if is_asked else ():
                ratios = side.samples(name, "ratio", [group])
                ratio = estimate_median(ratios, side.confidence) if ratios else None
                if ratio and not ratio.low <= 1 <= ratio.high:
                    warnings.append(
                        f"In run {side.run.id} the baseline against itself took {ratio.told()} of its time "
                        f"({told_block(trial.block)}): differences this small mean nothing."
                    )
    right = []
    for name, trial in new.trials.items():
        is_asked = trial.role == "control" and trial.block in by_ratio and name in old.trials
        found = _compared(old, new, name, "ratio") if is_asked else None
        if found is None:
            continue
        told = f"{found.quotient.told()} ({told_block(trial.block)})"
        if found.quotient.low <= 1 <= found.quotient.high:
            right.append(told)
        else:
            warnings.append(f"{AGAINST_ITSELF} {told}: differences this small mean nothing.")
    notes = [f"{AGAINST_ITSELF} {'; '.join(right)}."] if right else []
    return notes, warnings
