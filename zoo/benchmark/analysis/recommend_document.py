"""A recommendation as a document: what a person reads, and what a program does. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from zoo.benchmark.analysis.recommend import Choice, Reached, Recommendation
from zoo.benchmark.table import document as table_document
from zoo.benchmark.table.columns import Column, column_named
from zoo.benchmark.table.rows import Row
from zoo.benchmark.trial import told_block
from zoo.common.grid import Document, Grid, GridRow, Heading, Line

__all__ = ["document", "records"]

NO_QUALITY = (
    "Quality was not measured in these runs: this is about cost alone. The cheapest pairing need not segment well; "
    "compare their quality on your own images."
)
NO_PAIRING = "a reference, to compare pairings with; zoo.build does not make it"
USUAL = ("contiguous", "eager")
OWN_FIELDS = ("code", "best_in")
"""What a pick's record has beside the table's."""


def document(recommendation: Recommendation) -> Document:
    """Return the recommendation: block by block what to choose, its code, and what limits it; CSV holds the picks alone."""
    is_silent = not recommendation.has_quality and recommendation.fits
    return Document(
        parts=(
            Line(text=_title(recommendation), kind="title", style="bold"),
            *([Line(text=NO_QUALITY, style="yellow")] if is_silent else []),
            *(part for choice in recommendation.choices for part in _parts(recommendation, choice)),
            *(Line(text=text, kind="item") for text in _notes(recommendation)),
        ),
        records=partial(records, recommendation),
        facts=partial(_facts, recommendation),
        fields=(*table_document.records(replace(recommendation.table, rows=recommendation.table.rows[:1]))[0], *OWN_FIELDS),
    )


def _parts(recommendation: Recommendation, choice: Choice) -> Iterator[Grid | Line]:
    """Yield a choice's heading, its picks with their code, and how each limit bounds it."""
    yield Line(text=f"{_heading(recommendation, choice)}:", style="bold" if choice.picks else "bold red")
    if choice.picks:
        columns = _columns(choice)
        numbers = (Heading(text=column.heading, is_number=True) for column in columns)
        rows = (
            (str(place), _name(pick.row), *(column.cell(pick.row) for column in columns), ", ".join(pick.best_in) or "between")
            for place, pick in enumerate(choice.picks, 1)
        )
        yield Grid(
            headings=(Heading(text="", is_number=True), Heading(text="pairing"), *numbers, Heading(text="best in")),
            sections=(tuple(GridRow(cells=cells) for cells in rows),),
        )
    for place, pick in enumerate(choice.picks, 1):
        if pick.row.code:
            yield Line(text=pick.row.code, kind="code", style="cyan", number=place)
        else:
            yield Line(text=NO_PAIRING, kind="item", style="cyan", number=place)
    yield from (Line(text=text, kind="item") for text in _limits(choice))


def records(recommendation: Recommendation) -> list[dict[str, Any]]:
    """Return the picks as the table's flat records, with the code that builds each and what it is best in."""
    picks = [pick for choice in recommendation.choices for pick in choice.picks]
    flat = table_document.records(replace(recommendation.table, rows=tuple(pick.row for pick in picks)))
    return [
        record | {"code": pick.row.code or None, "best_in": "; ".join(pick.best_in) or None}
        for record, pick in zip(flat, picks, strict=True)
    ]


def _columns(choice: Choice) -> list[Column]:
    names = [*choice.objectives, *(reached.limit.column for reached in choice.limits)]
    return [column_named(name) for name in dict.fromkeys(names)]


def _limits(choice: Choice) -> Iterator[str]:
    """Yield how each limit bounds the choice, and what would fit if it were a little looser."""
    for reached in choice.limits:
        if not reached.missed:
            yield f"{reached.limit} excludes none."
            continue
        alone = f", {reached.alone} of them by itself" if len(choice.limits) > 1 else ""
        unknown = f" ({reached.unknown} for want of a value)" if reached.unknown else ""
        yield f"{reached.limit} excludes {reached.missed} of {choice.measured}{alone}{unknown}.{_nearest(reached)}"


def _nearest(reached: Reached) -> str:
    if reached.nearest is None:
        return ""
    looser = reached.limit.loosened(reached.nearest)
    if reached.also_missed:
        others = " and ".join(map(str, reached.also_missed))
        return f" Closest is {_name(reached.nearest)}: it keeps {looser}, but misses {others} too."
    return f" With {looser} instead, {_name(reached.nearest)} would fit."


def _heading(recommendation: Recommendation, choice: Choice) -> str:
    run, *block = choice.block
    row = next(row for row in recommendation.table.rows if row.block == choice.block)
    where = f"{told_block(block)} on {row.device_name} ({row.device})"
    told = f"run {run}, {where}" if len({each.block[0] for each in recommendation.choices}) > 1 else where
    if not choice.measured and not choice.picks:
        return f"{told}: no pairing was measured"
    if not choice.picks:
        return f"{told}: none of {choice.measured} pairings fits"
    if not choice.fitting:
        return f"{told}: none of {choice.measured} pairings fits, only a model that is none"
    fits = "fits" if choice.fitting == 1 else "fit"
    fitting = f"{choice.fitting} of {choice.measured} pairings {fits}" if choice.limits else f"{choice.measured} pairings"
    return f"{told}: {fitting}, {len(choice.picks)} worth choosing"


def _title(recommendation: Recommendation) -> str:
    runs = ", ".join(f"run {run.id} {run.name} ({run.started[:10]})" for run in recommendation.table.runs)
    limits = f" with {' '.join(map(str, recommendation.limits))}" if recommendation.limits else ""
    told = "What to choose" if recommendation.fits else "No pairing fits"
    return f"{told}{limits}, by {runs}"


def _notes(recommendation: Recommendation) -> Iterator[str]:
    for choice in recommendation.choices:
        if choice.lacking:
            names = ", ".join(_name(row) for row in choice.lacking)
            yield f"Left out, for they lack a value of {', '.join(choice.objectives)}: {names}."
        if choice.failed:
            yield f"{choice.failed} pairing(s) failed there and are not counted; `zoo table --where failure!=none` says why."
    objectives = dict.fromkeys(name for choice in recommendation.choices for name in choice.objectives)
    if objectives:
        yield (
            f"worth choosing = no other that fits is as good in {', '.join(objectives)} and better in one of them; "
            "tie: the intervals of the latencies overlap"
            + (", or seeds cannot tell the qualities apart" if "quality" in objectives else "")
            + "."
        )
    if recommendation.limits:
        yield "A limit is kept where the unfavourable end of the interval keeps it."
    if recommendation.has_quality:
        yield from (f"{note}." for note in table_document.quality_notes(recommendation.table))
    yield f"From {recommendation.table.store}."


def _name(row: Row) -> str:
    return ", ".join((row.name, *(value for value in (row.memory_format, row.runtime) if value not in USUAL)))


def _facts(recommendation: Recommendation) -> dict[str, Any]:
    picks = records(recommendation)
    return {
        "runs": [{"id": run.id, "name": run.name, "started": run.started} for run in recommendation.table.runs],
        "limits": {limit.keyword: limit.bound for limit in recommendation.limits},
        "fits": recommendation.fits,
        "is_about_cost_alone": not recommendation.has_quality,
        "choices": [_plain(choice, picks) for choice in recommendation.choices],
    }


def _plain(choice: Choice, picks: list[dict[str, Any]]) -> dict[str, Any]:
    keys = {pick.row.key for pick in choice.picks}
    return {
        **dict(zip(("run", "mode", "batch", "height", "width", "dtype"), choice.block, strict=True)),
        "measured": choice.measured,
        "fitting": choice.fitting,
        "failed": choice.failed,
        "objectives": list(choice.objectives),
        "picks": [record for record in picks if record["key"] in keys and record["run"] == choice.block[0]],
        "limits": [
            {
                "limit": reached.limit.keyword,
                "bound": reached.limit.bound,
                "missed": reached.missed,
                "missed_alone": reached.alone,
                "unknown": reached.unknown,
                "nearest": reached.nearest.key if reached.nearest else None,
                "nearest_pairing": reached.nearest.name if reached.nearest else None,
                "nearest_reaches": reached.limit.reached(reached.nearest) if reached.nearest else None,
                "nearest_also_misses": [limit.keyword for limit in reached.also_missed],
            }
            for reached in choice.limits
        ],
    }
