"""Write the notes below the table of a benchmark. Torch-free."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from zoo.benchmark.quality import format_budget
from zoo.benchmark.table.columns import Column
from zoo.benchmark.table.quality import data_content, data_names
from zoo.benchmark.table.rows import Check, Results, Row
from zoo.benchmark.trial import format_block
from zoo.common.statistics import CONFIDENCE, SCORE_TIE

__all__ = ["intervals_note", "misses_by_chance", "peak_legend", "quality_notes", "table_notes"]

MANY_CHECKS = 5
"""If more than this number of A/A checks of a block are not off, one note tells of all of them."""
FEW_SEEDS = 5
"""With fewer seeds than this, the intervals of differences in mIoU are so wide that a note says so."""


def table_notes(table: Results, columns: Sequence[Column], *, legend: bool) -> list[str]:
    """Return the notes below the table: failures, flags, A/A checks, what the columns mean, and where the rows come from."""
    notes = [f"FAILED {row.name}, {format_block(row.block[1:])}: {row.error}" for row in table.rows if row.error]
    notes += _flag_notes([row for row in table.rows if not row.error])
    notes += _check_notes(table.checks)
    if legend:
        notes += _legend(table, columns)
    else:
        notes.append("--legend explains the columns.")
    if any(column.name == "quality" for column in columns):
        notes += [f"{note}." for note in quality_notes(table)]
    runs = ", ".join(f"run {run.id} (input: {run.config['input']}, classes: {run.config['classes']})" for run in table.runs)
    return [*notes, f"From {table.store}: {runs}."]


def _flag_notes(rows: Sequence[Row]) -> list[str]:
    """Return a line for each flag (a warning) that all rows have, and a line for each row with further flags."""
    shared = [flag for flag in (rows[0].flags if len(rows) > 1 else ()) if all(flag in row.flags for row in rows)]
    of_rows = ((row, [flag for flag in row.flags if flag not in shared]) for row in rows)
    return [
        *(f"All rows: {flag}." for flag in shared),
        *(f"{row.name}, {format_block(row.block[1:])}: {'; '.join(own)}." for row, own in of_rows if own),
    ]


def _legend(table: Results, columns: Sequence[Column]) -> list[str]:
    notes = [f"{column.heading} = {column.legend}." for column in columns if column.legend]
    if any(column.name == "memory" for column in columns):
        notes.append(f"peak MiB = {peak_legend(table)}.")
    if any(column.name == "efficiency" for column in columns):
        notes += [f"best rate in {dtype}: {rate}." for dtype, rate in table.rates.items()]
    return [*notes, intervals_note(table)]


def peak_legend(table: Results) -> str:
    """Return the legend of the peak memory, which is measured on an accelerator, but computed for the CPU."""
    if any(row.allocated_bytes is not None for row in table.rows):
        return "the peak size of the row's tensors on the accelerator, as counted by its allocator"
    return "the peak size of all live tensors during a step, computed and not measured; an allocator needs more"


def intervals_note(table: Results) -> str:
    """Return a sentence that states the confidence level of the intervals."""
    looks = any(isinstance(run.config.get("rounds"), dict) for run in table.runs)
    ended = ", even if a check of the intervals ended the rounds (the level of each check is higher)" if looks else ""
    return f"Each interval has a confidence level of 95 %{ended}."


def quality_notes(table: Results) -> list[str]:
    """Return a note on the training data of each run, and on the budget for training each model.

    If the models of two runs were not, or perhaps not, trained on the same data, a warning follows.
    """
    notes = []
    names = data_names(table.runs)
    for run in table.runs:
        config = run.config.get("quality")
        if config:
            qualities = [row.quality for row in table.rows if row.run == run.id and row.quality]
            which = f"run {run.id}: " if len(table.runs) > 1 else ""
            budget = format_budget(config, qualities)
            notes.append(
                f"{which}mIoU on the test split of {names[run.id]}: {budget}, {config['seeds']} seeds; the look-up by color "
                "and the majority class are not neural networks, so every model should score above them"
            )
    if note := _note_on_few_seeds(table.rows):
        notes.append(note)
    if len({data_content(run) for run in table.runs if run.id in names}) > 1:
        data = "; ".join(f"run {run}: {name}" for run, name in names.items())
        notes.append(
            f"WARNING: these runs trained on different data, or on data that cannot be shown to be the same ({data}), so their "
            "mIoU cannot be compared"
        )
    return notes


def _note_on_few_seeds(rows: Sequence[Row]) -> str:
    """Return how large a difference in mIoU must be to be told from chance, if a model has few seeds; "" otherwise."""
    compared = [row for row in rows if row.quality and row.quality_difference and not row.is_baseline]
    few = min((len(row.quality.seeds) for row in compared if row.quality), default=FEW_SEEDS)
    if few >= FEW_SEEDS:
        return ""
    halves = [row.quality_difference.half_width for row in compared if row.quality_difference]
    finite = [half for half in halves if not math.isinf(half)]
    if few == 1 or not finite:
        return "With a single seed, no difference in mIoU can be told from chance; train with at least five seeds"
    return (
        f"With {few} seeds, only differences in mIoU of about {statistics.median(finite) + SCORE_TIE:.2f} or more can be told "
        "from chance; train with at least five seeds to compare more precisely"
    )


def _check_notes(checks: Sequence[Check]) -> list[str]:
    """Return a note for each A/A check. If there are many in a block, those that are not off share one note."""
    notes = []
    for block in dict.fromkeys(check.block for check in checks):
        of_block = [check for check in checks if check.block == block]
        quiet = [check for check in of_block if not check.is_off]
        notes += [_format_check(check) for check in of_block if check.is_off or len(quiet) <= MANY_CHECKS]
        if len(quiet) > MANY_CHECKS:
            medians = [check.ratio.median for check in quiet]
            notes.append(
                f"A/A checks, {format_block(block[1:])}: in {len(quiet)} of {len(of_block)} groups, the interval of the second "
                f"copy's ratio to the baseline contains 1, and its median is {min(medians):.3f} to {max(medians):.3f}. By "
                f"chance, at most about {misses_by_chance(len(of_block))} intervals exclude 1."
            )
    return notes


def misses_by_chance(checks: int) -> str:
    """Return how many intervals of so many A/A checks exclude the true ratio by chance, at most on average, as text.

    Fewer do if the rounds of a run end early, since its intervals then have a higher confidence level.
    """
    return f"{(1 - CONFIDENCE) * checks:.1g}" if checks < 20 else f"{(1 - CONFIDENCE) * checks:.0f}"


def _format_check(check: Check) -> str:
    result = (
        f"A/A check, {format_block(check.block[1:])}: the second copy of the baseline took {check.ratio.format()} times as "
        "long as the baseline"
    )
    if not check.is_off:
        return f"{result}."
    measured = f" (measured with {', '.join(check.names)})" if check.names else ""
    return f"WARNING: {result}{measured}. Differences of this size mean nothing here."
