"""A comparison of two runs as a terminal, a Markdown page, a spreadsheet or a program reads it. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from zoo.benchmark.compare import VERDICTS, Change, Compared, Comparison, Failing
from zoo.benchmark.stored import StoredRun
from zoo.benchmark.trial import Trial, told_block
from zoo.rendering import FULL_WIDTH, csv_text, escaped, json_text, plain_text, table_row
from zoo.statistics import TIE

__all__ = ["records", "render", "summary", "terminal_view", "told_trial"]

STYLES = {"slower": "red", "faster": "green", "can't be told": ""}
COSTS = {"live_bytes": ("live MiB", 2.0**20, 1), "parameters": ("params M", 1e6, 3), "flops": ("GFLOPs", 1e9, 3)}
"""How a cost is called, its unit, and the digits shown."""


def render(comparison: Comparison, form: str) -> str:
    """Return the comparison as "table", "markdown", "csv" or "json"."""
    if form == "table":
        return plain_text(terminal_view(comparison, FULL_WIDTH))
    if form == "markdown":
        return _markdown(comparison)
    return csv_text(records(comparison)) if form == "csv" else _json(comparison)


def terminal_view(comparison: Comparison, width: int) -> RenderableType:
    """Return the comparison for a terminal of this width: the outcome in a line, the trials by block, what failed."""
    title, *differences = _title(comparison)
    shown: list[RenderableType] = [Text(title, style="bold"), *map(Text, differences), Text("")]
    shown.append(Text(summary(comparison), style="bold"))
    for block in dict.fromkeys(each.trial.block for each in comparison.compared):
        shown += [Text(""), Text(_told_block(comparison, block), style="italic"), _drawn(comparison, block, width)]
        shown += [Text(line, style="yellow") for line in _changes(comparison, block)]
    shown.append(Text(""))
    shown += [Text(note, style="red") for note in _failures(comparison)]
    shown += [Text(note, style="yellow") for note in _warnings(comparison)]
    return Group(*shown, *map(Text, _notes(comparison)))


def _drawn(comparison: Comparison, block: Sequence[Any], width: int) -> RenderableType:
    """Return the table of a block; its columns are as wide as those of every other."""
    headings = _headings(comparison)
    widths = [
        max(len(heading), *(len(_cells(comparison, each)[place]) for each in comparison.compared))
        for place, heading in enumerate(headings)
    ]
    drawn = RichTable(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1) if width >= 100 else (0, 0))
    for place, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if 0 < place < len(headings) - 1 else "left"
        least = widths[place] if place else None
        drawn.add_column(Text(heading), justify=justify, overflow="fold", min_width=least, max_width=widths[place])
        if not place and sum(widths) + 3 * len(widths) < width:
            drawn.columns[0].min_width = widths[0]
    for each in comparison.compared:
        if each.trial.block == block:
            style = "dim" if each.is_gauge else STYLES[each.verdict]
            drawn.add_row(*map(Text, _cells(comparison, each)), style=style)
    return drawn


def summary(comparison: Comparison) -> str:
    """Return the outcome in a line."""
    verdicts = Counter(each.verdict for each in comparison.judged)
    told = [f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict]]
    told += [
        f"{len(trials)} {what}"
        for trials, what in (
            (comparison.fails_now, "failing now"),
            (comparison.failed_before, "no longer failing"),
            (comparison.fails_still, "failing in both"),
            (comparison.unmeasured, "not yet measured in both"),
        )
        if trials
    ]
    count = sum(bool(each.changes) for each in comparison.compared)
    told += [f"{count} of another size or cost"] if count else []
    return f"In run {comparison.after.id}: {', '.join(told)}."


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one flat record a trial, of either run; missing values are None."""
    return [
        *(_record("compared", each.trial, each) for each in comparison.compared),
        *(_record("fails now", each.trial, error=each.error) for each in comparison.fails_now),
        *(_record("failed before", each.trial, error=each.error) for each in comparison.failed_before),
        *(_record("fails still", each.trial, error=each.error) for each in comparison.fails_still),
        *(_record("not measured in both", trial) for trial in comparison.unmeasured),
        *(_record("only before", trial) for trial in comparison.only_before),
        *(_record("only after", trial) for trial in comparison.only_after),
    ]


def told_trial(trial: Trial) -> str:
    """Return what the table calls a trial beside its block; the usual memory format and runtime are left out."""
    unusual = [value for value in (trial.memory_format, trial.runtime) if value not in ("contiguous", "eager")]
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


def _json(comparison: Comparison) -> str:
    facts = {
        "before": asdict(comparison.before),
        "after": asdict(comparison.after),
        "summary": summary(comparison),
        "trials": records(comparison),
        "differences": [asdict(change) for change in comparison.differences],
        "warnings": _warnings(comparison),
        "notes": list(comparison.notes),
    }
    return json_text(facts, indent=2) + "\n"


def _markdown(comparison: Comparison) -> str:
    title, *differences = _title(comparison)
    lines = [f"**{escaped(title)}**", "", *(escaped(line) for line in differences), "", f"**{escaped(summary(comparison))}**"]
    headings = [*_headings(comparison), "changed"]
    for block in dict.fromkeys(each.trial.block for each in comparison.compared):
        lines += ["", escaped(_told_block(comparison, block)), "", table_row(map(escaped, headings))]
        lines.append(table_row(["---", *["---:"] * (len(headings) - 3), "---", "---"]))
        for each in comparison.compared:
            if each.trial.block == block:
                lines.append(table_row(map(escaped, [*_cells(comparison, each), "; ".join(map(_told_change, each.changes))])))
    notes = [*_failures(comparison), *_warnings(comparison), *_notes(comparison)]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in notes)]) + "\n"


def _title(comparison: Comparison) -> list[str]:
    """Return what is compared, in a line, and what differs of where it was measured, in another."""
    before, after = (_told_run(run) for run in (comparison.before, comparison.after))
    differences = ", ".join(f"{change.fact} {change.before} -> {change.after}" for change in comparison.differences)
    environment = comparison.after.environment
    is_same = environment["device_name"] == comparison.before.environment["device_name"]
    where = f", on {environment['device_name']} ({environment['device']})" if is_same else ""
    return [f"{before} -> {after}{where}", *([f"Differs: {differences}."] if differences else [])]


def _told_run(run: StoredRun) -> str:
    return f"run {run.id} {run.name} ({run.started[:16].replace('T', ' ')}{'' if run.finished else ', unfinished'})"


def _headings(comparison: Comparison) -> list[str]:
    before, after = f"run {comparison.before.id}", f"run {comparison.after.id}"
    return ["pairing", before, after, f"{after} / {before}", "verdict"]


def _cells(comparison: Comparison, each: Compared) -> list[str]:
    scale, digits, unit = (1e3, 1, " ms") if each.by == "latency" else (1.0, 2, "")
    medians = [f"{estimate.median * scale:.{digits}f}{unit}" for estimate in (each.before, each.after)]
    quotient = each.quotient.told(digits=2)
    role = " (baseline)" if each.trial.role == "baseline" else ""
    verdict = f"{each.verdict}, by latency" if role and _is_by_ratio(comparison, each.trial.block) else each.verdict
    return [told_trial(each.trial) + role, *medians, quotient, verdict]


def _is_by_ratio(comparison: Comparison, block: Sequence[Any]) -> bool:
    return any(each.by == "ratio" or each.is_gauge for each in comparison.compared if each.trial.block == block)


def _told_block(comparison: Comparison, block: Sequence[Any]) -> str:
    return f"{told_block(block)}: {'time / baseline' if _is_by_ratio(comparison, block) else 'latency'}"


def _changes(comparison: Comparison, block: Sequence[Any]) -> Iterator[str]:
    for each in comparison.compared:
        if each.trial.block == block and each.changes:
            yield f"{told_trial(each.trial)}: {', '.join(map(_told_change, each.changes))}."


def _told_change(change: Change) -> str:
    name, unit, digits = COSTS[change.fact]
    before, after = (f"{float(value or 0) / unit:,.{digits}f}" for value in (change.before, change.after))
    share = f" ({float(change.after or 0) / float(change.before) - 1:+.1%})".replace("%", " %") if change.before else ""
    return f"{name} {before} -> {after}{share}"


def _failures(comparison: Comparison) -> list[str]:
    def told(failing: Failing) -> str:
        return f"{told_trial(failing.trial)}, {told_block(failing.trial.block)}: {failing.error}"

    return [f"FAILS NOW {told(each)}" for each in comparison.fails_now] + [
        f"Fails in both: {told(each)}" for each in comparison.fails_still
    ]


def _warnings(comparison: Comparison) -> list[str]:
    warnings = [f"WARNING: {warning}" for warning in comparison.warnings]
    if any(each.by == "latency" and each.trial.role != "baseline" for each in comparison.compared):
        warnings.append(
            "WARNING: latencies of two runs are compared as they are: how fast the machine was in each is in the quotients, "
            "and not in their intervals."
        )
    return warnings


def _notes(comparison: Comparison) -> Iterator[str]:
    before, after = comparison.before.id, comparison.after.id
    for each in comparison.failed_before:
        yield f"Fails no longer: {told_trial(each.trial)}, {told_block(each.trial.block)} (in run {before}: {each.error})"
    for what, trials in (
        (f"Only in run {before}", comparison.only_before),
        (f"Only in run {after}", comparison.only_after),
        ("Not yet measured in both", comparison.unmeasured),
    ):
        for block in dict.fromkeys(trial.block for trial in trials):
            yield f"{what}: {told_block(block)}: {'; '.join(told_trial(trial) for trial in trials if trial.block == block)}."
    yield from comparison.notes
    yield (
        f"run {after} / run {before} = the later median over the earlier, and the interval it lies in; below 1 is faster in "
        f"run {after}; a verdict takes an interval that lies outside {TIE[0]} to {TIE[1]}."
    )
    if any(each.by == "ratio" for each in comparison.compared):
        yield (
            "time / baseline = latency over the baseline's in the same round, so that how fast the machine was in either run "
            "cancels. So does what slows the baseline and the others alike: look at the baseline's own row, which is compared "
            "by latency and holds the machine's drift, or use --by latency."
        )
    yield f"From {comparison.store}."
