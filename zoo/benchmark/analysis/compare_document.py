"""Convert a comparison of two runs to a document, which is shown as text or exported as CSV or JSON. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from zoo.benchmark.analysis.compare import VERDICTS, Compared, Comparison, Outcome
from zoo.benchmark.analysis.compared_run import Change
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.trial import Trial, format_block, unusual_settings
from zoo.common.grid import Document, Grid, GridRow, Heading, Line
from zoo.common.statistics import TIE

__all__ = ["document", "format_trial", "records", "summary"]

STYLES = {"slower": "red", "faster": "green", "tie": ""}
COSTS = {"live_bytes": ("live MiB", 2.0**20, 1), "parameters": ("params M", 1e6, 3), "flops": ("GFLOPs", 1e9, 3)}
"""For each cost, its displayed name, the size of its unit, and the number of decimals."""
COUNTED: dict[Outcome, str] = {
    "fails now": "failing now",
    "failed before": "no longer failing",
    "fails still": "failing in both",
    "not measured in both": "not yet measured in both",
}
"""The outcomes that the summary counts, each with its wording in the summary."""


def document(comparison: Comparison) -> Document:
    """Return the comparison as a document: a summary, a table for each block, changed costs, failures, warnings and notes."""
    title, *differences = _title(comparison)
    blocks = dict.fromkeys(each.trial.block for each in comparison.compared)
    return Document(
        parts=(
            Line(text=title, kind="title", style="bold"),
            *(Line(text=text) for text in differences),
            Line(text=summary(comparison), kind="title", style="bold"),
            *(part for block in blocks for part in _parts(comparison, block)),
            *(Line(text=text, kind="item", style="red") for text in _failures(comparison)),
            *(Line(text=text, kind="item", style="yellow") for text in _warnings(comparison)),
            *(Line(text=text, kind="item") for text in _notes(comparison)),
        ),
        records=partial(records, comparison),
        facts=partial(_facts, comparison),
    )


def _parts(comparison: Comparison, block: Sequence[Any]) -> Iterator[Grid | Line]:
    """Yield the heading of a block, its table, and a line for each trial whose costs changed."""
    compared = [each for each in comparison.compared if each.trial.block == block]
    rows = (
        GridRow(cells=_cells(comparison, each), style="dim" if each.is_gauge else STYLES[each.verdict]) for each in compared
    )
    yield Line(text=_format_block(comparison, block), style="italic")
    yield Grid(headings=_headings(comparison), sections=(tuple(rows),))
    yield from (
        Line(text=f"{format_trial(each.trial)}: {', '.join(map(_format_change, each.changes))}.", kind="item", style="yellow")
        for each in compared
        if each.changes
    )


def summary(comparison: Comparison) -> str:
    """Return one sentence with the number of trials for each verdict and outcome."""
    verdicts = Counter(each.verdict for each in comparison.judged)
    outcomes = Counter(each.outcome for each in comparison.uncompared)
    counts = [f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict]]
    counts += [f"{outcomes[outcome]} {words}" for outcome, words in COUNTED.items() if outcomes[outcome]]
    if changed := sum(bool(each.changes) for each in comparison.compared):
        counts.append(f"{changed} with a changed size or cost")
    return f"In run {comparison.after.id}: {', '.join(counts)}."


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a flat dictionary for each trial of either run; missing values are None."""
    return [
        *(_record("compared", each.trial, each) for each in comparison.compared),
        *(_record(each.outcome, each.trial, error=each.error) for each in comparison.uncompared),
    ]


def format_trial(trial: Trial) -> str:
    """Return a trial's name, its memory format unless it is "contiguous", and its runtime unless it is "eager"."""
    unusual = unusual_settings(trial.memory_format, trial.runtime)
    return ", ".join((str(trial), *unusual))


def _record(outcome: str, trial: Trial, each: Compared | None = None, error: str | None = None) -> dict[str, Any]:
    scale = 1e3 if each and each.by == "latency" else 1.0
    costs = {cost.fact: cost for cost in each.costs} if each else {}
    return {
        "outcome": outcome,
        "pairing": str(trial),
        "mode": trial.mode,
        "batch": trial.batch,
        "height": trial.height,
        "width": trial.width,
        "dtype": trial.dtype,
        "memory_format": trial.memory_format,
        "runtime": trial.runtime,
        "role": trial.role,
        "compared_by": {"ratio": "ratio to baseline", "latency": "latency ms"}[each.by] if each else None,
        "before": each.before.median * scale if each else None,
        "after": each.after.median * scale if each else None,
        "quotient": each.quotient.median if each else None,
        "quotient_low": each.quotient.low if each else None,
        "quotient_high": each.quotient.high if each else None,
        "verdict": each.verdict if each else None,
        **{f"{fact}_before": costs[fact].before if fact in costs else None for fact in COSTS},
        **{f"{fact}_after": costs[fact].after if fact in costs else None for fact in COSTS},
        "error": error,
    }


def _facts(comparison: Comparison) -> dict[str, Any]:
    return {
        "before": asdict(comparison.before),
        "after": asdict(comparison.after),
        "summary": summary(comparison),
        "trials": records(comparison),
        "differences": [asdict(change) for change in comparison.differences],
        "warnings": _warnings(comparison),
        "notes": list(comparison.notes),
    }


def _title(comparison: Comparison) -> list[str]:
    """Return a line that names the runs and, if their environments differ, a second line with the differences."""
    before, after = (_format_run(run) for run in (comparison.before, comparison.after))
    differences = ", ".join(f"{change.fact} {change.before} -> {change.after}" for change in comparison.differences)
    environment = comparison.after.environment
    is_same = environment["device_name"] == comparison.before.environment["device_name"]
    where = f", on {environment['device_name']} ({environment['device']})" if is_same else ""
    return [f"{before} -> {after}{where}", *([f"Differences: {differences}."] if differences else [])]


def _format_run(run: StoredRun) -> str:
    return f"run {run.id} {run.name} ({run.started[:16].replace('T', ' ')}{'' if run.finished else ', unfinished'})"


def _headings(comparison: Comparison) -> tuple[Heading, ...]:
    before, after = f"run {comparison.before.id}", f"run {comparison.after.id}"
    numbers = (Heading(text=text, is_number=True) for text in (before, after, f"{after} / {before}"))
    return (Heading(text="pairing"), *numbers, Heading(text="verdict"))


def _cells(comparison: Comparison, each: Compared) -> tuple[str, ...]:
    scale, digits, unit = (1e3, 1, " ms") if each.by == "latency" else (1.0, 2, "")
    medians = [f"{estimate.median * scale:.{digits}f}{unit}" for estimate in (each.before, each.after)]
    quotient = each.quotient.format(digits=2)
    role = " (baseline)" if each.trial.role == "baseline" else ""
    verdict = f"{each.verdict}, by latency" if role and _is_by_ratio(comparison, each.trial.block) else each.verdict
    return (format_trial(each.trial) + role, *medians, quotient, verdict)


def _is_by_ratio(comparison: Comparison, block: Sequence[Any]) -> bool:
    return any(each.by == "ratio" or each.is_gauge for each in comparison.compared if each.trial.block == block)


def _format_block(comparison: Comparison, block: Sequence[Any]) -> str:
    return f"{format_block(block)}: {'time / baseline' if _is_by_ratio(comparison, block) else 'latency'}"


def _format_change(change: Change) -> str:
    name, unit, digits = COSTS[change.fact]
    before, after = (f"{float(value or 0) / unit:,.{digits}f}" for value in (change.before, change.after))
    share = f" ({float(change.after or 0) / float(change.before) - 1:+.1%})".replace("%", " %") if change.before else ""
    return f"{name} {before} -> {after}{share}"


def _failures(comparison: Comparison) -> Iterator[str]:
    for each in comparison.uncompared:
        if each.outcome in ("fails now", "fails still"):
            prefix = "FAILS NOW" if each.outcome == "fails now" else "Fails in both:"
            yield f"{prefix} {format_trial(each.trial)}, {format_block(each.trial.block)}: {each.error}"


def _warnings(comparison: Comparison) -> list[str]:
    warnings = [f"WARNING: {warning}" for warning in comparison.warnings]
    if any(each.by == "latency" and each.trial.role != "baseline" for each in comparison.compared):
        warnings.append(
            "WARNING: the latencies of two runs are compared directly. If the machine was faster in one of the runs, that "
            "changes the quotients, but not the width of their intervals."
        )
    return warnings


def _notes(comparison: Comparison) -> Iterator[str]:
    before, after = comparison.before.id, comparison.after.id
    prefixes: dict[Outcome, str] = {
        "only before": f"Only in run {before}",
        "only after": f"Only in run {after}",
        "not measured in both": "Not yet measured in both",
    }
    for each in comparison.uncompared:
        if each.outcome == "failed before":
            trial = f"{format_trial(each.trial)}, {format_block(each.trial.block)}"
            yield f"No longer fails: {trial} (in run {before}: {each.error})"
    for outcome, prefix in prefixes.items():
        trials = [each.trial for each in comparison.uncompared if each.outcome == outcome]
        for block in dict.fromkeys(trial.block for trial in trials):
            names = "; ".join(format_trial(trial) for trial in trials if trial.block == block)
            yield f"{prefix}: {format_block(block)}: {names}."
    yield from comparison.notes
    yield (
        f"run {after} / run {before} = the median in run {after} divided by the median in run {before}, with its interval; "
        f"below 1, run {after} is faster; 'tie' unless the whole interval lies outside {TIE[0]} to {TIE[1]}."
    )
    if any(each.by == "ratio" for each in comparison.compared):
        yield (
            "time / baseline = the latency divided by the baseline's in the same round, so that the machine's speed cancels "
            "out. A change that slows the baseline and the other models alike cancels out, too. To see such a change, look at "
            "the baseline's own row, which compares latencies and includes the machine's drift, or use --by latency."
        )
    yield f"From {comparison.store}."
