"""Estimate the pairings that a recommendation did not measure, and show them below the measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from zoo.benchmark.analysis.pareto import pareto_front
from zoo.benchmark.analysis.recommend import Choice, Recommendation
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import format_block
from zoo.common.grid import Document, Grid, GridRow, Heading, Line
from zoo.common.json_cache import JsonCache
from zoo.errors import ZooError
from zoo.search.calibration import find_calibration
from zoo.search.candidates import Candidate, CandidateFinder, Considered
from zoo.search.counting.counter import PairingCounter, default_cache
from zoo.search.request import SearchRequest

__all__ = ["EstimatedChoice", "estimate_others", "with_estimates"]

SHOWN = 12
"""The largest number of estimated pairings that are shown for a block."""
NOT_ESTIMATED = ("--min-quality",)
"""Limits that no estimate can check."""
UNLIKE = "they are unlike all pairings that the calibration timed"
"""The reason of pairings whose times could only be guessed, which a search measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedChoice:
    """The estimated pairings for one block of a recommendation.

    Attributes:
        block: the block of the measured rows.
        picks: the pairings that may meet the limits, and that no other estimated pairing beats in latency, memory and
            parameters; the fastest first.
        considered: the estimated pairings, and why others were dropped; None if nothing could be estimated.
        unchecked: the limits that no estimate can check.
        reason: why nothing could be estimated; "" otherwise.
        run: the number of the calibration's run.
    """

    block: tuple[Any, ...]
    picks: tuple[Candidate, ...] = ()
    considered: Considered | None = None
    unchecked: tuple[str, ...] = ()
    reason: str = ""
    run: int | None = None


def estimate_others(
    recommendation: Recommendation,
    store: Store,
    watcher: Watcher,
    *,
    encoders: Sequence[str] = (),
    decoders: Sequence[str] = (),
) -> list[EstimatedChoice]:
    """Estimate the pairings that were not measured, for each block of a recommendation.

    Args:
        recommendation: the recommendation of measured pairings.
        store: the results store, with a calibration of the device.
        watcher: shows the progress.
        encoders: ids or globs of the encoders to estimate; empty for all.
        decoders: ids or globs of the decoders to estimate; empty for all.

    Raises:
        UnknownIdError: no encoder or no decoder matches a pattern.
    """
    with closing(JsonCache(default_cache(), watcher.say)) as counts:
        counter = PairingCounter(counts)
        return [
            _estimate(recommendation, choice, store, watcher, counter, encoders, decoders) for choice in recommendation.choices
        ]


def _estimate(
    recommendation: Recommendation,
    choice: Choice,
    store: Store,
    watcher: Watcher,
    counter: PairingCounter,
    encoders: Sequence[str],
    decoders: Sequence[str],
) -> EstimatedChoice:
    _, mode, batch, height, width, dtype = choice.block
    rows = [row for row in recommendation.table.rows if row.block == choice.block]
    if mode != "inference" or dtype != "float32":
        return EstimatedChoice(block=choice.block, reason="only inference in float32 can be estimated")
    try:
        calibration = find_calibration(store, device=rows[0].device)
    except ZooError as cause:  # there is no calibration, or this machine has no such device
        return EstimatedChoice(block=choice.block, reason=str(cause))
    if calibration.run.environment["device_name"] != rows[0].device_name:
        return EstimatedChoice(block=choice.block, reason=f"this machine is not the {rows[0].device_name} of the measured rows")
    config = next(run.config for run in recommendation.table.runs if run.id == choice.block[0])
    request = SearchRequest(
        encoders=tuple(encoders),
        decoders=tuple(decoders),
        height=height,
        width=width,
        batch=batch,
        classes=config["classes"],
        in_channels=config["in_channels"],
        limits=tuple(limit for limit in recommendation.limits if limit.option not in NOT_ESTIMATED),
        prior={},
        minutes=1,
        device=rows[0].device,
    )
    considered = CandidateFinder(request, calibration.model, counter, watcher).find()
    measured = {(row.encoder, row.decoder) for row in rows if row.latency}
    candidates = [each for each in considered.candidates if (each.pairing.encoder, each.pairing.decoder) not in measured]
    others = [each for each in candidates if not each.is_guessed]
    guessed = len(candidates) - len(others)
    dropped = {**considered.dropped, **({UNLIKE: guessed} if guessed else {})}
    front = pareto_front([(each.latency.seconds, each.peak_bytes, each.parameters) for each in others])
    return EstimatedChoice(
        block=choice.block,
        picks=tuple(others[index] for index in front),
        considered=replace(considered, candidates=tuple(others), dropped=dropped),
        unchecked=tuple(str(limit) for limit in recommendation.limits if limit.option in NOT_ESTIMATED),
        run=calibration.run.id,
    )


def with_estimates(document: Document, estimated: Sequence[EstimatedChoice]) -> Document:
    """Return the document of a recommendation with the estimated pairings below the measured ones.

    In JSON, they have a key of their own. As CSV, the document contains only the measured rows.
    """
    return replace(
        document,
        parts=(*document.parts, *(part for choice in estimated for part in _parts(choice))),
        facts=lambda: document.facts() | {"estimated": [_plain(choice) for choice in estimated]},
    )


def _parts(choice: EstimatedChoice) -> Iterator[Grid | Line]:
    title = f"Estimated, not measured: {format_block(choice.block[1:])}"
    if choice.considered is None:
        yield Line(text=f"{title}: nothing, because {choice.reason}", style="bold red")
        return
    count = len(choice.considered.candidates)
    yield Line(text=f"{title}: {count:,} of {choice.considered.total:,} pairings may meet the limits", style="bold")
    headings = ("estimated ms [90 %]", "live MiB", "params M", "GFLOPs")
    yield Grid(
        headings=(Heading(text="pairing"), *(Heading(text=text, is_number=True) for text in headings)),
        sections=(tuple(GridRow(cells=_cells(candidate)) for candidate in choice.picks[:SHOWN]),),
    )
    if len(choice.picks) > SHOWN:
        yield Line(text=f"{len(choice.picks) - SHOWN} slower ones are not shown; --format json has all.", kind="item")
    dropped = sorted(choice.considered.dropped.items(), key=lambda each: -each[1])
    if dropped:
        yield Line(text=f"Dropped: {'; '.join(f'{number:,} because {reason}' for reason, number in dropped)}.", kind="item")
    if choice.unchecked:
        yield Line(text=f"{' and '.join(choice.unchecked)} cannot be estimated, and is not checked here.", kind="item")
    yield Line(
        text="These are the pairings that no other estimated one beats in latency, live tensors and parameters (calibration: "
        f"run {choice.run}). Estimates are not ranked with measurements: measure them with `zoo search` or `zoo bench`.",
        kind="item",
    )


def _cells(candidate: Candidate) -> tuple[str, ...]:
    median, low, high = (1e3 * value for value in (candidate.latency.seconds, candidate.latency.low, candidate.latency.high))
    return (
        f"{candidate.pairing.encoder} x {candidate.pairing.decoder}",
        f"{median:.1f} [{low:.1f}, {high:.1f}]",
        f"{candidate.peak_bytes / 2**20:.0f}",
        f"{candidate.parameters / 1e6:.2f}",
        f"{candidate.flops / 1e9:.2f}",
    )


def _plain(choice: EstimatedChoice) -> dict[str, Any]:
    return {
        "block": list(choice.block),
        "reason": choice.reason,
        "calibration": choice.run,
        "total": choice.considered.total if choice.considered else 0,
        "dropped": dict(choice.considered.dropped) if choice.considered else {},
        "unchecked_limits": list(choice.unchecked),
        "may_meet_the_limits": len(choice.considered.candidates) if choice.considered else 0,
        "picks": [
            {
                "encoder": candidate.pairing.encoder,
                "decoder": candidate.pairing.decoder,
                "estimated_latency_seconds": candidate.latency.seconds,
                "estimated_latency_low": candidate.latency.low,
                "estimated_latency_high": candidate.latency.high,
                "live_bytes": candidate.peak_bytes,
                "parameters": candidate.parameters,
                "flops": candidate.flops,
            }
            for candidate in choice.picks
        ],
    }
