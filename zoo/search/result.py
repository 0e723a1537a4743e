"""The result of a search, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zoo.benchmark.analysis.recommend import find_exclusions
from zoo.benchmark.analysis.recommend_document import describe_exclusions
from zoo.benchmark.table import document as table_document
from zoo.benchmark.table.columns import column_named
from zoo.benchmark.table.notes import quality_notes
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table
from zoo.benchmark.trial import format_block
from zoo.common.format_names import format_count
from zoo.common.grid import Document, Grid, GridRow, Heading, Line
from zoo.search.candidates import NO_TIME
from zoo.search.request import SearchRequest

__all__ = ["SearchResult", "document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The result of a search. `str()` returns it as text.

    Attributes:
        request: what the search looked for.
        table: the rows of the run that measured the best pairings precisely.
        rows: the rows that meet all limits, the best first.
        validation: for a search with data, a mapping from the key of each row that was trained to the end to its mean mIoU on
            the validation images; otherwise empty.
        considered: the number of all pairings (`total`), of those that may meet the limits (`candidates`), and of those that
            were dropped for each reason (`dropped`); one reason is that there was no time to count them.
        measured: the number of pairings that were measured.
        trained: for each stage with training, the number of steps after which it stopped, and the number of candidates that it
            trained; empty without data.
        unmeasured: the candidates that could not be measured, with their errors.
        failures: the candidates that could not be trained, with their errors.
        untrained: the number of measured candidates that were not trained for lack of time.
        model: the folder of the best trained model (`saved`), for `zoo.load`; None if no model is saved on this machine.
        folder: the folder of the search.
    """

    request: SearchRequest
    table: Table
    rows: tuple[Row, ...]
    validation: Mapping[str, float]
    considered: Mapping[str, Any]
    measured: int
    trained: tuple[tuple[int, int], ...]
    unmeasured: tuple[str, ...]
    failures: tuple[str, ...]
    untrained: int
    model: Path | None
    folder: Path

    @property
    def best(self) -> Row | None:
        """The row of the best pairing; None if no pairing meets all limits."""
        return self.rows[0] if self.rows else None

    @property
    def saved(self) -> Row | None:
        """The row of the best trained pairing: the best one that meets all limits or, if none does, the best of all."""
        trained = rank(self.table.rows, self.validation)
        return next((row for row in self.rows if row.key in self.validation), trained[0] if trained else None)

    def __str__(self) -> str:
        return str(document(self))


def document(result: SearchResult) -> Document:
    """Return the result as a document: the pairings that meet all limits, how they were found, and the code of the best."""
    return Document(
        parts=tuple(_parts(result)),
        records=lambda: _records(result),
        facts=partial(_facts, result),
        fields=tuple(_records(replace(result, rows=result.table.rows[:1]))[0]),
    )


def _parts(result: SearchResult) -> Iterator[Grid | Line]:
    request = result.request
    row = result.table.rows[0]
    limits = "".join(f" {limit}" for limit in request.limits)
    yield Line(text=f"The best pairings{' for' if limits else ''}{limits}", kind="title", style="bold")
    yield Line(text=f"{format_block(row.block[1:])} on {row.device_name} ({row.device}):", style="bold")
    if result.rows:
        names = ["latency", "memory", "parameters", "flops", *(["quality"] if request.quality else []), "licenses"]
        columns = [column_named(name) for name in names]
        grid_rows = tuple(
            GridRow(
                cells=(str(rank), row.name, *(column.cell(row) for column in columns[:-1]))
                + ((_format_score(result, row),) if request.prior or request.quality else ())
                + (columns[-1].cell(row), _remark(result, row))
            )
            for rank, row in enumerate(result.rows, 1)
        )
        score = "validation mIoU" if request.quality else "prior"
        yield Grid(
            headings=(
                Heading(text="", is_number=True),
                Heading(text="pairing"),
                *(Heading(text=column.heading, is_number=True) for column in columns[:-1]),
                *([Heading(text=score, is_number=True)] if request.prior or request.quality else []),
                Heading(text=columns[-1].heading, can_wrap=True, drop_order=0),
                Heading(text="remark"),
            ),
            sections=(grid_rows,),
        )
    else:
        yield Line(text="None of the precisely measured pairings meets all limits.", style="bold red")
        measured = [row for row in result.table.rows if row.latency and row.failure is None]
        exclusions = find_exclusions(measured, request.limits, has_fitting=False)
        yield from (Line(text=text, kind="item") for text in describe_exclusions(exclusions, len(measured)))
    if result.best:
        yield Line(text=result.best.code, kind="code", style="cyan")
    if result.model and result.saved:
        remark = "trained" if result.best else f"{result.saved.name}: trained, but misses a limit"
        yield Line(text=f"zoo.load({str(result.model)!r})  # {remark}", kind="code", style="cyan")
    yield from (Line(text=text, kind="item") for text in _notes(result))


def _score(result: SearchResult, row: Row) -> float | None:
    """Return what the rows are ranked by: the mIoU on the validation images, the prior score or the FLOPs."""
    if result.request.quality:
        return result.validation.get(row.key)
    return result.request.score(row.encoder, row.flops or 0)


def _format_score(result: SearchResult, row: Row) -> str:
    score = _score(result, row)
    return "-" if score is None else f"{score:.3f}" if result.request.quality else f"{score:g}"


def _remark(result: SearchResult, row: Row) -> str:
    """Return in what a row is best, or how it compares with the best."""
    remarks = []
    fastest = min(result.rows, key=lambda each: each.latency.median if each.latency else 0.0)
    if row is result.best:
        remarks.append(f"best {result.request.score_name}" if result.request.quality or result.request.prior else "most FLOPs")
    elif result.best and _is_tied(result, row, result.best):
        remarks.append("ties with the best")
    if row is fastest:
        remarks.append("fastest")
    elif row.latency and fastest.latency and row.latency.low <= fastest.latency.high:
        remarks.append("ties with the fastest")
    return ", ".join(remarks) or "-"


def _is_tied(result: SearchResult, row: Row, best: Row) -> bool:
    """Return whether another measurement might rank a row before the best one."""
    if result.request.quality:
        difference = row.quality.difference(best.quality) if row.quality and best.quality else None
        return difference is not None and difference.is_tie
    is_equal = _score(result, row) == _score(result, best)
    return bool(is_equal and row.latency and best.latency and row.latency.low <= best.latency.high)


def _notes(result: SearchResult) -> Iterator[str]:
    request, considered = result.request, result.considered
    uncounted = considered["dropped"].get(NO_TIME, 0)
    reasons = [(reason, count) for reason, count in considered["dropped"].items() if reason != NO_TIME]
    dropped = sorted(reasons, key=lambda each: -each[1])
    of_all = f" of {considered['total']:,}" if uncounted else ""
    text = (
        f"{considered['total'] - uncounted:,}{of_all} pairings were considered. "
        f"{considered['candidates']:,} of them may meet the limits"
    )
    yield f"{text}; {sum(count for _, count in dropped):,} were dropped{':' if dropped else '.'}" + (
        f" {'; '.join(f'{count:,} because {reason}' for reason, count in dropped)}." if dropped else ""
    )
    if considered.get("guessed"):
        guessed = format_count(considered["guessed"], "candidate")
        yield f"Unlike all pairings that the calibration timed: {guessed}. Until they are measured, their times are guesses."
    if considered.get("uncountable"):
        yield f"The first that cannot be counted: {considered['uncountable']}."
    if uncounted:
        yield (
            f"There was no time to count the other {uncounted:,}. The next search goes on with them: name another --output and "
            "more --minutes, or fewer encoders and decoders."
        )
    yield (
        f"Measured roughly: {result.measured}; of these, precisely: {len(result.table.rows)}. The table shows those of the "
        "latter that meet all limits."
    )
    if result.unmeasured:
        count = format_count(len(result.unmeasured), "candidate")
        yield f"{count} could not be measured. The first: {result.unmeasured[0]}."
    devices = sorted({each.device_name for each in result.table.rows})
    if len(devices) > 1:
        yield f"The rows were measured on different devices ({', '.join(devices)}), so their times cannot be compared."
    if considered.get("promising"):
        yield (
            f"There was no time to measure {considered['promising']:,} more that may be faster than the shown ones. To measure "
            "more of them, set more --minutes and another --output."
        )
    if considered.get("untried"):
        yield f"{considered['untried']:,} candidates were not tried: those that were are as different as possible."
    if considered.get("too_slow"):
        yield f"{considered['too_slow']:,} were not measured because each would have taken too much of the time."
    if result.trained:
        rungs = ", ".join(f"{count} for {steps:,} steps" for steps, count in result.trained)
        yield f"Trained: {rungs}. After each number of steps, the best third went on, by the mIoU on the validation images."
        if result.untrained:
            yield (
                f"There was no time to train {result.untrained} further candidates. To train more, set more --minutes and "
                "another --output."
            )
        if result.failures:
            yield f"{format_count(len(result.failures), 'candidate')} could not be trained. The first: {result.failures[0]}."
        yield from (f"{note}." for note in quality_notes(result.table))
    elif not request.prior:
        yield (
            "Quality was not measured. More FLOPs in the same time are only a hint of quality: rank encoders with --prior, or "
            "train candidates with --data."
        )
    yield f"The results are run {result.table.runs[0].id} of {result.table.store}. The search is in {result.folder}."


def _records(result: SearchResult) -> list[dict[str, Any]]:
    records = table_document.records(replace(result.table, rows=result.rows))
    return [
        record | {"code": row.code, "score": _score(result, row), "remark": _remark(result, row)}
        for record, row in zip(records, result.rows, strict=True)
    ]


def _facts(result: SearchResult) -> dict[str, Any]:
    return {
        "request": result.request.as_dict(),
        "run": result.table.runs[0].id,
        "considered": dict(result.considered),
        "measured": result.measured,
        "trained": [{"steps": steps, "candidates": count} for steps, count in result.trained],
        "failures": list(result.failures),
        "untrained": result.untrained,
        "unmeasured": list(result.unmeasured),
        "model": None if result.model is None else str(result.model),
        "folder": str(result.folder),
        "store": str(result.table.store),
        "pairings": _records(result),
    }


def rank(rows: Sequence[Row], scores: Mapping[str, float]) -> tuple[Row, ...]:
    """Return the rows sorted by their scores, the best first. Rows with equal scores are sorted by latency."""
    known = [row for row in rows if row.key in scores]
    return tuple(sorted(known, key=lambda row: (-scores[row.key], row.latency.median if row.latency else 0.0)))
