"""Compare two runs of the same trials: which trials became slower or more costly, and which trials fail now. Torch-free."""

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
"""The verdicts, in the order in which they are shown."""

Outcome: TypeAlias = Literal["fails now", "failed before", "fails still", "not measured in both", "only before", "only after"]
"""Why a trial was not compared. "fails now": it failed only in the later run. "failed before": it failed only in the earlier
run. "fails still": it failed in both runs. "not measured in both": at least one of the runs has no finished round of
the trial. "only before": only the earlier run contains it. "only after": only the later run contains it."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

COSTS = ("live_bytes", "parameters", "flops")
"""The fields of `StaticCost` that are compared."""

AGAINST_ITSELF = (
    "A/A check between the runs (the second copy's ratio to the baseline in the later run, divided by that in the earlier run; "
    "it should be 1):"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One trial that both runs measured.

    Attributes:
        trial: the trial of the later run.
        by: what was compared: the ratio to the baseline's time in the same round, or the latency.
        before: the median in the earlier run: a ratio without a unit, or a latency in seconds.
        after: the median in the later run.
        quotient: `after` divided by `before`.
        costs: the costs of the model (see `COSTS`) that are known in both runs.
        is_gauge: whether the trial only shows how fast the machine was. This is so for the baseline of a block whose trials
            are compared by ratio, if the baseline is a reference (not a pairing).
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
        """The costs that differ between the runs."""
        return tuple(cost for cost in self.costs if cost.before != cost.after)

    @property
    def verdict(self) -> Verdict:
        """Whether the trial became slower or faster; "tie" unless the whole interval of the quotient lies outside `TIE`."""
        if self.quotient.is_tie:
            return "tie"
        return "slower" if self.quotient.low > TIE[1] else "faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompared:
    """A trial that was not compared, with the reason, and with its error if it failed."""

    trial: Trial
    outcome: Outcome
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of comparing two runs.

    Attributes:
        before: the earlier run.
        after: the later run.
        compared: the trials that both runs measured, block by block.
        uncompared: all other trials, sorted by outcome in the order of `OUTCOMES`.
        differences: what differs between the environments, plugin files and data of the runs.
        warnings: reasons not to trust the comparison.
        notes: how the runs were compared.
        store: the path of the store with both runs.
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
        """The compared trials, except references whose latency shows only how fast the machine was (`is_gauge`)."""
        return tuple(each for each in self.compared if not each.is_gauge)

    def slower_than(self, share: float) -> tuple[Compared, ...]:
        """Return the judged trials whose time grew by more than `share`, even at the lower end of the quotient's interval."""
        return tuple(each for each in self.judged if each.quotient.low > 1 + share)


def compare(store: Store, before: int, after: int, *, by: By | None = None, anywhere: bool = False) -> Comparison:
    """Compare the trials that two runs share.

    Args:
        store: the store that contains both runs.
        before: the number of the earlier run.
        after: the number of the later run; its times are divided by those of the earlier run.
        by: "ratio" compares each trial's median ratio to the baseline's time in the same round, so that the machine's speed
            cancels out. "latency" compares the median latencies. By default, a block (the trials that share a baseline) is
            compared by ratio if both runs measured its baseline, otherwise by latency.
        anywhere: whether runs that were measured on different devices may be compared.

    Raises:
        OptionError: `before` and `after` are the same run; the runs share no trial; `by` is "ratio", but the runs do not share
            a measured baseline in every block; or the runs were measured on different devices and `anywhere` is False.
    """
    if before == after:
        raise OptionError(f"Both are run {before}. Name two different runs; `zoo runs` lists the runs in {store.path}.")
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
        raise OptionError(
            "--by ratio requires that both runs measured the same baseline in each block. This is not so for the blocks below; "
            f"use --by latency:\n{lines}"
        )
    compared, uncompared = [], []
    for name in dict.fromkeys((*new.trials, *old.trials)):
        trial = new.trials.get(name) or old.trials[name]
        if trial.role == "control":
            continue
        outcome = _find_outcome(old, new, name)
        is_by_ratio = by != "latency" and trial.block not in lacking
        # The baseline's ratio to itself is always 1, so only the baseline's latency can be compared.
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
    """Return why a trial cannot be compared; None if both runs contain it and it failed in neither."""
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
                f"Run {old.run.id} was measured on {one}, run {new.run.id} on {other}: a difference could come from the "
                "devices and not from the models. Pass --different-devices to compare the runs anyway."
            )


def _explain_missing_ratio(old: ComparedRun, new: ComparedRun, block: tuple[Any, ...]) -> str:
    """Return why the ratios of a block cannot be compared; "" if they can."""
    one, other = old.baseline(block), new.baseline(block)
    if one is None or other is None:
        return "one of the runs has no baseline in this block"
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
    """Return the sort key of a compared trial: by block, then the baseline before the others, then by verdict."""
    is_baseline = compared.trial.role == "baseline"
    return blocks.index(compared.trial.block), not is_baseline, VERDICTS.index(compared.verdict)


def _check_baselines(
    old: ComparedRun, new: ComparedRun, blocks: Sequence[tuple[Any, ...]], by_ratio: Sequence[tuple[Any, ...]]
) -> tuple[list[str], list[str]]:
    """Return notes and warnings on the A/A checks, which compare each baseline with its copy.

    The copy is compared with the baseline within each run, for `blocks`. In addition, its ratio to the baseline is compared
    between the runs, for the blocks in `by_ratio`.
    """
    warnings = []
    for side in (old, new):
        for name, trial in side.trials.items():
            is_control = trial.role == "control" and trial.block in blocks
            for group in side.groups_of(name) if is_control else ():
                ratios = side.samples(name, "ratio", [group])
                ratio = estimate_median(ratios, side.confidence) if ratios else None
                if ratio and not ratio.low <= 1 <= ratio.high:
                    warnings.append(
                        f"In run {side.run.id}, the second copy of the baseline took {ratio.format()} times as long as the "
                        f"baseline ({format_block(trial.block)}). Differences of this size mean nothing."
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
            warnings.append(f"{AGAINST_ITSELF} {text}. Differences of this size mean nothing.")
    return [f"{AGAINST_ITSELF} {'; '.join(agreeing)}."] if agreeing else [], warnings
