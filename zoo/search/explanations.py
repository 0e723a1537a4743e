"""Explain why a search has no answer, and what the user can do. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.benchmark.analysis.facts import FACTS
from zoo.benchmark.analysis.recommend import LIMITS, find_exclusions
from zoo.benchmark.analysis.recommend_document import describe_exclusions
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.search.candidates import NO_TIME, Considered
from zoo.search.request import SearchRequest

__all__ = ["explain_no_measurement", "explain_nothing", "explain_rows"]


def explain_nothing(considered: Considered) -> str:
    """Return why no pairing is a candidate, and which limits the nearest pairings would meet."""
    reasons = [(reason, count) for reason, count in considered.dropped.items() if reason != NO_TIME]
    dropped = sorted(reasons, key=lambda each: -each[1])
    text = f"None of {considered.total - considered.uncounted:,} pairings may meet the limits"
    text += f": {'; '.join(f'{count:,} were dropped because {reason}' for reason, count in dropped)}." if dropped else "."
    if considered.uncountable:
        text += f" The first that cannot be counted: {considered.uncountable}."
    if considered.uncounted:
        text += (
            f" There was no time to count {considered.uncounted:,} others. The counts so far are kept: search again, with more "
            "--minutes or with fewer encoders and decoders."
        )
    for limit, (value, pairing) in considered.nearest.items():
        least = FACTS[LIMITS[limit][0]].format_limit(value, is_upper=True)
        text += f" The nearest to --{limit.replace('_', '-')} is {pairing}, with at least {least}."
    return text


def explain_no_measurement(candidates: int, needed: float, request: SearchRequest) -> str:
    """Return why no candidate was measured.

    Args:
        candidates: the number of candidates.
        needed: how many seconds the whole search must take so that the fastest candidate is measured.
        request: what the search looks for.
    """
    if needed > 60 * request.minutes:
        return (
            f"Measuring even the fastest of {candidates:,} candidates would take too much of the {request.minutes:g} minutes. "
            f"Set --minutes to at least {math.ceil(needed / 6) / 10:g}."
        )
    return (
        f"No candidate could be measured in {request.minutes:g} minutes, since counting the pairings took the time. The counts "
        "are kept: search again, with more --minutes or with fewer encoders and decoders."
    )


def explain_rows(rows: Sequence[Row], request: SearchRequest, store: Store) -> str:
    """Return why none of the roughly measured pairings meets the limits, and what the nearest ones meet."""
    failed = [row for row in rows if row.failure]
    measured = [row for row in rows if row.latency]
    text = f"None of the {len(rows)} roughly measured pairings meets the limits."
    if measured:
        exclusions = find_exclusions(measured, request.limits, has_fitting=False)
        text += f" {' '.join(describe_exclusions(exclusions, len(measured)))}"
    if failed:
        text += (
            f" {len(failed)} could not be measured. The first: {failed[0].name}: {failed[0].error}. "
            f"`zoo table {failed[0].run} --store {store.path}` shows all errors."
        )
    return text
