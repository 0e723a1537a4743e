"""Convert a recommendation to a document, which is shown as text or exported as CSV or JSON. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from zoo.benchmark.analysis.conditions import Condition
from zoo.benchmark.analysis.recommend import Choice, Exclusion, Pick, Recommendation, loosen
from zoo.benchmark.table import document as table_document
from zoo.benchmark.table.columns import column_named
from zoo.benchmark.table.notes import quality_notes
from zoo.benchmark.table.rows import Row
from zoo.benchmark.trial import BLOCK_FACTS, format_block, unusual_settings
from zoo.common.grid import Document, Grid, GridRow, Heading, Line

__all__ = ["describe_exclusions", "document"]

NO_QUALITY = (
    "Quality was not measured in these runs, so this recommendation is about cost alone. The cheapest pairing may segment "
    "badly. Compare the pairings' quality on your own images."
)
REFERENCE = "a reference, to compare pairings with, which zoo.build cannot build"


def document(recommendation: Recommendation) -> Document:
    """Return the recommendation as a document.

    For each block of comparable rows, it contains the recommended rows, the code that builds each, and what each limit
    excludes.

    As CSV, the document contains only the recommended rows.
    """
    needs_warning = recommendation.fits and not recommendation.has_quality
    return Document(
        parts=(
            Line(text=_title(recommendation), kind="title", style="bold"),
            *([Line(text=NO_QUALITY, style="yellow")] if needs_warning else []),
            *(part for choice in recommendation.choices for part in _parts(recommendation, choice)),
            *(Line(text=text, kind="item") for text in _notes(recommendation)),
        ),
        records=lambda: [record for choice in recommendation.choices for record in _records(recommendation, choice.picks)],
        facts=partial(_facts, recommendation),
        # the CSV has these columns even if no row is recommended
        fields=tuple(_records(recommendation, [Pick(row=recommendation.table.rows[0], best_in=())])[0]),
    )


def _parts(recommendation: Recommendation, choice: Choice) -> Iterator[Grid | Line]:
    """Yield the heading of a block, its recommended rows with their code, and what each limit excludes."""
    yield Line(text=f"{_heading(recommendation, choice)}:", style="bold" if choice.picks else "bold red")
    if choice.picks:
        limited = (exclusion.limit.fact.name for exclusion in choice.exclusions)
        columns = [column_named(name) for name in dict.fromkeys([*choice.objectives, *limited])]
        rows = (
            (str(rank), _name(pick.row), *(column.cell(pick.row) for column in columns), ", ".join(pick.best_in) or "between")
            for rank, pick in enumerate(choice.picks, 1)
        )
        numbers = (Heading(text=column.heading, is_number=True) for column in columns)
        yield Grid(
            headings=(Heading(text="", is_number=True), Heading(text="pairing"), *numbers, Heading(text="best in")),
            sections=(tuple(GridRow(cells=cells) for cells in rows),),
        )
    for rank, pick in enumerate(choice.picks, 1):
        kind: Any = "code" if pick.row.code else "item"
        yield Line(text=pick.row.code or REFERENCE, kind=kind, style="cyan", number=rank)
    yield from (Line(text=text, kind="item") for text in describe_exclusions(choice.exclusions, choice.measured))


def describe_exclusions(exclusions: Sequence[Exclusion], measured: int) -> Iterator[str]:
    """Yield for each limit how many of the measured pairings it excludes, which is closest to it, and what limit that meets."""
    yield from (_describe(exclusion, measured, is_single=len(exclusions) == 1) for exclusion in exclusions)


def _describe(exclusion: Exclusion, measured: int, *, is_single: bool) -> str:
    if not exclusion.missed:
        return f"{exclusion.limit} excludes none."
    alone = f", {exclusion.alone} of them by itself" if not is_single else ""
    unknown = f" ({exclusion.unknown} without a value)" if exclusion.unknown else ""
    sentence = f"{exclusion.limit} excludes {exclusion.missed} of {measured}{alone}{unknown}."
    if exclusion.nearest is None:
        return sentence
    looser, name = loosen(exclusion.limit, exclusion.nearest), _name(exclusion.nearest)
    if exclusion.also_missed:
        others = " and ".join(map(str, exclusion.also_missed))
        return f"{sentence} Closest is {name}: it meets {looser}, but misses {others} too."
    return f"{sentence} With {looser} instead, {name} would meet all limits."


def _heading(recommendation: Recommendation, choice: Choice) -> str:
    run, *block = choice.block
    row = next(row for row in recommendation.table.rows if row.block == choice.block)
    where = f"{format_block(block)} on {row.device_name} ({row.device})"
    if len({each.block[0] for each in recommendation.choices}) > 1:
        where = f"run {run}, {where}"
    if not choice.measured and not choice.picks:
        return f"{where}: no pairing was measured"
    if not choice.fitting:
        reference = ", but a reference does" if choice.picks else ""
        return f"{where}: none of {choice.measured} pairings meets all limits{reference}"
    verb = "meets all limits" if choice.fitting == 1 else "meet all limits"
    fitting = f"{choice.fitting} of {choice.measured} pairings {verb}" if choice.exclusions else f"{choice.measured} pairings"
    return f"{where}: {fitting}, {len(choice.picks)} worth choosing"


def _title(recommendation: Recommendation) -> str:
    runs = ", ".join(f"run {run.id} {run.name} ({run.started[:10]})" for run in recommendation.table.runs)
    limits = f" with {' '.join(map(str, recommendation.limits))}" if recommendation.limits else ""
    return f"{'What to choose' if recommendation.fits else 'No suitable pairing'}{limits}, according to {runs}"


def _notes(recommendation: Recommendation) -> Iterator[str]:
    for choice in recommendation.choices:
        if choice.lacking:
            names = ", ".join(_name(row) for row in choice.lacking)
            yield f"Left out, because a value of {', '.join(choice.objectives)} is missing: {names}."
        if choice.failed:
            yield f"{choice.failed} pairing(s) failed and are not counted. `zoo table --where failure!=none` shows the errors."
    objectives = ", ".join(dict.fromkeys(name for choice in recommendation.choices for name in choice.objectives))
    if objectives:
        seeds = ", or the seeds cannot tell the qualities apart" if recommendation.has_quality else ""
        yield (
            f"worth choosing = no other pairing that meets the limits is at least as good in all of {objectives}, and better "
            f"in one of them; tie = the intervals of the latencies overlap{seeds}."
        )
    if recommendation.limits:
        yield "A pairing meets a limit if the worse end of its interval meets it."
    if recommendation.has_quality:
        yield from (f"{note}." for note in quality_notes(recommendation.table))
    yield f"From {recommendation.table.store}."


def _name(row: Row) -> str:
    return ", ".join((row.name, *unusual_settings(row.memory_format, row.runtime)))


def _records(recommendation: Recommendation, picks: Sequence[Pick]) -> list[dict[str, Any]]:
    """Return the recommended rows as records of the table, with two more keys.

    `code` is the code that builds the model, and `best_in` names the objectives in which the row is best.
    """
    records = table_document.records(replace(recommendation.table, rows=tuple(pick.row for pick in picks)))
    return [
        record | {"code": pick.row.code or None, "best_in": "; ".join(pick.best_in) or None}
        for record, pick in zip(records, picks, strict=True)
    ]


def _facts(recommendation: Recommendation) -> dict[str, Any]:
    return {
        "runs": [{"id": run.id, "name": run.name, "started": run.started} for run in recommendation.table.runs],
        "limits": {_keyword(limit): _bound(limit) for limit in recommendation.limits},
        "fits": recommendation.fits,
        "is_about_cost_alone": not recommendation.has_quality,
        "choices": [
            {
                **dict(zip(("run", *BLOCK_FACTS), choice.block, strict=True)),
                "measured": choice.measured,
                "fitting": choice.fitting,
                "failed": choice.failed,
                "objectives": list(choice.objectives),
                "picks": _records(recommendation, choice.picks),
                "limits": [_plain(exclusion) for exclusion in choice.exclusions],
            }
            for choice in recommendation.choices
        ],
    }


def _plain(exclusion: Exclusion) -> dict[str, Any]:
    limit, nearest = exclusion.limit, exclusion.nearest
    return {
        "limit": _keyword(limit),
        "bound": _bound(limit),
        "missed": exclusion.missed,
        "missed_alone": exclusion.alone,
        "unknown": exclusion.unknown,
        "nearest": nearest.key if nearest else None,
        "nearest_pairing": nearest.name if nearest else None,
        "nearest_reaches": limit.fact.value(nearest) if nearest else None,
        "nearest_also_misses": [_keyword(other) for other in exclusion.also_missed],
    }


def _keyword(limit: Condition) -> str:
    return limit.option.removeprefix("--").replace("-", "_")


def _bound(limit: Condition) -> float:
    return limit.fact.parse(limit.value, limit.option)[0]
