"""Compare two runs of the same trials: what became slower, larger or broken. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from zoo.benchmark.analysis.compared_run import By, Change, ComparedRun, find_differences
from zoo.benchmark.environment import format_device
from zoo.benchmark.store.records import StoredRun, StoredTrial
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Reference, Trial, format_block
from zoo.common.statistics import TIE, Estimate, estimate_median, estimate_quotient
from zoo.errors import OptionError

__all__ = ["Compared", "Comparison", "Outcome", "Uncompared", "Verdict", "compare"]

Verdict: TypeAlias = Literal["slower", "faster", "tie"]
VERDICTS: tuple[Verdict, ...] = ("slower", "faster", "tie")
"""In the order in which they are shown."""

Outcome: TypeAlias = Literal["fails now", "failed before", "fails still", "not measured in both", "only before", "only after"]
"""Why a trial was not compared: it failed in the later run alone, in the earlier alone, or in both; one run has not finished
a first round of it; or one run does not have it."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

COSTS = ("live_bytes", "parameters", "flops")
"""The costs that follow from a trial's model alone."""

AGAINST_ITSELF = "A/A check: the baseline against itself, from run to run, where 1 is right:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One trial that both runs measured.

    Attributes:
        trial: as the later run has it.
        by: what was compared: the ratio to the baseline of the same round, or the latency itself.
        before: the median of that, for the ratio a plain number, for the latency in seconds.
        quotient: after over before.
        costs: of the model, those known of both runs.
        is_gauge: whether it is a reference and the baseline of a block compared by the ratio: its latency gauges the machine.
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
        """The verdict of the interval; "tie" if it reaches into the band of ties."""
        if self.quotient.is_tie:
            return "tie"
        return "slower" if self.quotient.low > TIE[1] else "faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompared:
    """A trial that was not compared, why, and the error if it failed."""

    trial: Trial
    outcome: Outcome
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed from one run to another.

    Attributes:
        compared: the trials that both measured, block by block.
        uncompared: the others, in the order of `Outcome`.
        differences: between the environments of the runs.
        warnings: reasons not to trust the comparison.
        notes: how it was made.
    """

    before: StoredRun
    after: StoredRun
    compared: tuple[Compared, ...]
    uncompared: tuple[Uncompared, ...]
    differences: tuple[Change, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    store: str

    @property
    def judged(self) -> tuple[Compared, ...]:
        """The compared trials without the references that only gauge the machine."""
        return tuple(each for each in self.compared if not each.is_gauge)

    def slower_than(self, share: float) -> tuple[Compared, ...]:
        """Return the trials whose whole interval is slower by more than this share of their time."""
        return tuple(each for each in self.judged if each.quotient.low > 1 + share)


def compare(store: Store, before: int, after: int, *, by: By | None = None, anywhere: bool = False) -> Comparison:
    """Compare the trials that two runs share.

    Args:
        store: where both runs are.
        before: the number of the earlier run.
        after: of the later run, whose time is divided by that of the earlier.
        by: "ratio" compares medians of the ratio to the baseline of the same round, in which the machine's speed cancels;
            "latency" compares medians of the latency. None: the ratio in each block whose baseline both runs measured, else
            the latency.
        anywhere: also compare runs of different devices.

    Raises:
        OptionError: the runs are the same, share no trial, lack a shared baseline for "ratio", or were measured on different
            devices.
    """
    if before == after:
        raise OptionError(f"Both are run {before}: a comparison takes two runs. `zoo runs` lists those of {store.path}.")
    old, new = ComparedRun(store, before), ComparedRun(store, after)
    shared = [name for name in new.trials if name in old.trials]
    if not shared:
        raise OptionError(f"Runs {before} and {after} share no trial.\n  run {before}: {old}\n  run {after}: {new}")
    if not anywhere:
        _check_devices(old, new, shared)
    reasons = {
        block: _explain_missing_ratio(old, new, block) for block in dict.fromkeys(new.trials[name].block for name in shared)
    }
    lacking = {block: reason for block, reason in reasons.items() if reason}
    if by == "ratio" and lacking:
        lines = "\n".join(f"  {format_block(block)}: {reason}" for block, reason in lacking.items())
        raise OptionError(f"--by ratio requires a baseline that both runs measured; use --by latency.\n{lines}")
    compared, uncompared = [], []
    for name in dict.fromkeys((*new.trials, *old.trials)):
        trial = new.trials.get(name) or old.trials[name]
        if trial.role == "control":
            continue
        outcome = _find_outcome(old, new, name)
        is_by_ratio = by != "latency" and trial.block not in lacking
        # The baseline's ratio to itself is 1: only its latency can be compared.
        is_baseline = trial.role == "baseline"
        pair = None if outcome else _compare_trial(old, new, name, "ratio" if is_by_ratio and not is_baseline else "latency")
        if pair:
            is_gauge = is_by_ratio and is_baseline and isinstance(trial.subject, Reference)
            compared.append(replace(pair, is_gauge=is_gauge))
        else:
            error = new.failed.get(name) or old.failed.get(name)
            uncompared.append(Uncompared(trial=trial, outcome=outcome or "not measured in both", error=error))
    checks, warnings = _check_baselines(old, new, list(reasons), [] if by == "latency" else [*reasons.keys() - lacking.keys()])
    reasons_by_block = lacking.items() if by is None else ()
    notes = [f"{format_block(block)}: compared by latency, because {reason}." for block, reason in reasons_by_block]
    return Comparison(
        before=old.run,
        after=new.run,
        compared=tuple(sorted(compared, key=lambda each: _rank(each, list(reasons)))),
        uncompared=tuple(sorted(uncompared, key=lambda each: OUTCOMES.index(each.outcome))),
        differences=tuple(find_differences(old, new)),
        warnings=tuple(warnings),
        notes=(*notes, *checks),
        store=str(store.path),
    )


def _find_outcome(old: ComparedRun, new: ComparedRun, name: str) -> Outcome | None:
    """Return why a trial cannot be compared, as far as that is known before its samples are read."""
    if name not in new.trials:
        return "only before"
    if name not in old.trials:
        return "only after"
    if name in new.failed:
        return "fails still" if name in old.failed else "fails now"
    return "failed before" if name in old.failed else None


def _check_devices(old: ComparedRun, new: ComparedRun, shared: Sequence[str]) -> None:
    for name in shared:
        devices = [
            {format_device(group.environment) for group in side.groups_of(name) if group.environment} for side in (old, new)
        ]
        if all(devices) and devices[0] != devices[1]:
            one, other = (" and ".join(sorted(names)) for names in devices)
            raise OptionError(
                f"Run {old.run.id} was measured on {one}, run {new.run.id} on {other}: a difference would be the devices', "
                "not the models'. --different-devices compares them nevertheless."
            )


def _explain_missing_ratio(old: ComparedRun, new: ComparedRun, block: tuple[Any, ...]) -> str:
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


def _compare_trial(old: ComparedRun, new: ComparedRun, name: str, by: By) -> Compared | None:
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


def _rank(compared: Compared, blocks: Sequence[tuple[Any, ...]]) -> tuple[int, bool, int]:
    """Return the sort key of a row: block by block, the baseline first, then by verdict."""
    is_baseline = compared.trial.role == "baseline"
    return blocks.index(compared.trial.block), not is_baseline, VERDICTS.index(compared.verdict)


def _check_baselines(
    old: ComparedRun, new: ComparedRun, blocks: Sequence[tuple[Any, ...]], by_ratio: Sequence[tuple[Any, ...]]
) -> tuple[list[str], list[str]]:
    """Return notes and warnings on how the baseline compares with itself: within each run, and from run to run."""
    warnings = []
    for side in (old, new):
        for name, trial in side.trials.items():
            is_control = trial.role == "control" and trial.block in blocks
            for group in side.groups_of(name) if is_control else ():
                ratios = side.samples(name, "ratio", [group])
                ratio = estimate_median(ratios, side.confidence) if ratios else None
                if ratio and not ratio.low <= 1 <= ratio.high:
                    warnings.append(
                        f"In run {side.run.id} the baseline against itself took {ratio.format()} of its time "
                        f"({format_block(trial.block)}): differences this small mean nothing."
                    )
    agreeing = []
    for name, trial in new.trials.items():
        is_shared = trial.role == "control" and trial.block in by_ratio and name in old.trials
        pair = _compare_trial(old, new, name, "ratio") if is_shared else None
        if pair is None:
            continue
        text = f"{pair.quotient.format()} ({format_block(trial.block)})"
        if pair.quotient.low <= 1 <= pair.quotient.high:
            agreeing.append(text)
        else:
            warnings.append(f"{AGAINST_ITSELF} {text}: differences this small mean nothing.")
    return [f"{AGAINST_ITSELF} {'; '.join(agreeing)}."] if agreeing else [], warnings
