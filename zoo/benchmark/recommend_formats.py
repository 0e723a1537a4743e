"""A recommendation as a terminal, a Markdown page, a spreadsheet or a program reads it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from zoo.benchmark import formats
from zoo.benchmark.columns import Column, column_named
from zoo.benchmark.recommend import Choice, Reached, Recommendation
from zoo.benchmark.row import Row
from zoo.benchmark.trial import told_block
from zoo.rendering import FULL_WIDTH, csv_text, escaped, json_text, plain_text, table_row

__all__ = ["records", "render", "terminal_view"]

NO_QUALITY = (
    "Quality was not measured in these runs: this is about cost alone. The cheapest pairing need not segment well; "
    "compare their quality on your own images."
)
NO_PAIRING = "a reference, to compare pairings with; zoo.build does not make it"
USUAL = ("contiguous", "eager")


def render(recommendation: Recommendation, form: str) -> str:
    """Return the recommendation as "table", "markdown", "csv" or "json"; CSV holds the picks alone."""
    if form == "table":
        return plain_text(terminal_view(recommendation, FULL_WIDTH))
    if form == "markdown":
        return _markdown(recommendation)
    if form == "json":
        return _json(recommendation)
    picks = records(recommendation)
    if picks:
        return csv_text(picks)
    first = formats.records(recommendation.table)[0] | {"code": None, "best_in": None}
    return csv_text([first]).partition("\n")[0] + "\n"


def terminal_view(recommendation: Recommendation, width: int) -> RenderableType:
    """Return the recommendation for a terminal of this width: block by block what to choose, its code, and what limits it."""
    shown: list[RenderableType] = [Text(_title(recommendation), style="bold")]
    if not recommendation.has_quality and recommendation.fits:
        shown.append(Text(NO_QUALITY, style="yellow"))
    for choice in recommendation.choices:
        row = choice.picks[0].row if choice.picks else None
        shown += [Text(""), Text(_heading(recommendation, choice), style="bold" if row else "bold red")]
        if choice.picks:
            shown.append(_drawn(choice, width))
            shown += [*(Text(line, style="cyan") for line in _codes(choice)), *([Text("")] if choice.limits else [])]
        shown += [Text(line) for line in _limits(choice)]
    return Group(*shown, Text(""), *map(Text, _notes(recommendation)))


def records(recommendation: Recommendation) -> list[dict[str, Any]]:
    """Return the picks as the table's flat records, with the code that builds each and what it is best in."""
    picks = [pick for choice in recommendation.choices for pick in choice.picks]
    flat = formats.records(replace(recommendation.table, rows=tuple(pick.row for pick in picks)))
    return [
        record | {"code": pick.row.code or None, "best_in": "; ".join(pick.best_in) or None}
        for record, pick in zip(flat, picks, strict=True)
    ]


def _drawn(choice: Choice, width: int) -> RenderableType:
    is_narrow = width < 100
    drawn = RichTable(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 0) if is_narrow else (0, 1))
    drawn.add_column("", justify="right")
    for heading, is_number in _headings(choice):
        told = heading.replace(" ", "\n") if is_narrow and is_number else heading
        drawn.add_column(Text(told), justify="right" if is_number else "left", overflow="fold")
    for place, cells in enumerate(_cells(choice), 1):
        drawn.add_row(str(place), *(Text(cell.replace(" [", "\n[") if is_narrow else cell) for cell in cells))
    return drawn


def _columns(choice: Choice) -> list[Column]:
    names = [*choice.objectives, *(reached.limit.column for reached in choice.limits)]
    return [column_named(name) for name in dict.fromkeys(names)]


def _headings(choice: Choice) -> list[tuple[str, bool]]:
    return [("pairing", False), *((column.heading, True) for column in _columns(choice)), ("best in", False)]


def _cells(choice: Choice) -> Iterator[list[str]]:
    for pick in choice.picks:
        numbers = [column.cell(pick.row) for column in _columns(choice)]
        yield [_name(pick.row), *numbers, ", ".join(pick.best_in) or "between"]


def _codes(choice: Choice) -> Iterator[str]:
    for place, pick in enumerate(choice.picks, 1):
        yield f"{place}. {pick.row.code or NO_PAIRING}"


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
        yield from (f"{note}." for note in formats.quality_notes(recommendation.table))
    yield f"From {recommendation.table.store}."


def _name(row: Row) -> str:
    return ", ".join((row.name, *(value for value in (row.memory_format, row.runtime) if value not in USUAL)))


def _json(recommendation: Recommendation) -> str:
    picks = records(recommendation)
    facts = {
        "runs": [{"id": run.id, "name": run.name, "started": run.started} for run in recommendation.table.runs],
        "limits": {limit.keyword: limit.bound for limit in recommendation.limits},
        "fits": recommendation.fits,
        "is_about_cost_alone": not recommendation.has_quality,
        "choices": [_plain(choice, picks) for choice in recommendation.choices],
    }
    return json_text(facts, indent=2) + "\n"


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


def _markdown(recommendation: Recommendation) -> str:
    lines = [f"**{escaped(_title(recommendation))}**"]
    if not recommendation.has_quality and recommendation.fits:
        lines += ["", escaped(NO_QUALITY)]
    for choice in recommendation.choices:
        lines += ["", f"{escaped(_heading(recommendation, choice))}:", ""]
        if choice.picks:
            headings = [("", True), *_headings(choice)]
            lines.append(table_row(escaped(heading) for heading, _ in headings))
            lines.append(table_row("---:" if is_number else "---" for _, is_number in headings))
            lines += [table_row(map(escaped, [str(place), *cells])) for place, cells in enumerate(_cells(choice), 1)]
            codes = (f"`{pick.row.code}`" if pick.row.code else NO_PAIRING for pick in choice.picks)
            lines += ["", *(f"{place}. {code}" for place, code in enumerate(codes, 1)), ""]
        lines += [f"- {escaped(line)}" for line in _limits(choice)]
    lines += [] if not lines[-1] else [""]
    return "\n".join([*lines, *(f"- {escaped(note)}" for note in _notes(recommendation))]) + "\n"
