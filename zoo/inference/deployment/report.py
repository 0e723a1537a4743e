"""Report how a model was deployed."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.common.format_names import format_names
from zoo.common.grid import Grid, GridRow, Heading, Line, Part, to_text
from zoo.inference.deployment.choice import Candidate
from zoo.inference.deployment.passes import PassResult

__all__ = ["DeployReport"]

MAX_PLACES = 3
"""The maximum number of submodules that are named for each reason why a pass did not apply."""

PASS_HEADINGS = (
    Heading(text="pass"),
    *(Heading(text=text, is_number=True) for text in ("places", "operations", "GFLOPs", "MB written")),
    Heading(text="not applied", can_wrap=True),
)
CANDIDATE_HEADINGS = (
    Heading(text="runtime"),
    *(Heading(text=text, is_number=True) for text in ("ms", "times as fast", "error")),
    Heading(text="", can_wrap=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """The passes that changed a model's graph, the runtimes that were tried, and the runtime that was chosen.

    Attributes:
        shape: the shape of the example, (N, C, H, W).
        device: the device that the example was run on.
        threads: the number of PyTorch's CPU threads.
        tolerance: the requested relative error.
        accepted: the accepted relative error. It can exceed `tolerance` if the original computes with less precision than
            float32.
        passes: the result of each pass, in order.
        candidates: the original, and each runtime and precision that was tried.
        chosen: the fastest candidate that is accurate enough, which the deployed model runs.
        unread: the reason why no graph of the model could be captured; None if there is a graph. Without a graph, only the
            original can be run.
    """

    shape: tuple[int, ...]
    device: str
    threads: int
    tolerance: float
    accepted: float
    passes: tuple[PassResult, ...]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    unread: str | None = None

    def __str__(self) -> str:
        return to_text(self.parts(), width=120).rstrip()

    def parts(self) -> tuple[Part, ...]:
        """Return the report as lines and tables."""
        shape = "x".join(map(str, self.shape))
        device = f"{self.device}, {self.threads} threads" if self.device == "cpu" else self.device
        title = f"Deployed for {shape} on {device}, tolerance {self.tolerance:g}: {self.chosen}"
        parts: list[Part] = [Line(text=title, kind="title", style="bold")]
        if self.accepted > self.tolerance:
            error = f"an error of {self.candidates[0].error:.1e} relative to float32"
            parts.append(Line(text=f"The original computes in TF32, with {error}. Up to {self.accepted:.1e} is accepted."))
        if self.unread:
            parts.append(Line(text=self.unread))
        if self.passes:
            parts.append(Grid(headings=PASS_HEADINGS, sections=(tuple(map(_pass_row, self.passes)),)))
        parts.append(Grid(headings=CANDIDATE_HEADINGS, sections=(tuple(map(self._candidate_row, self.candidates)),)))
        return tuple(parts)

    def _candidate_row(self, candidate: Candidate) -> GridRow:
        seconds = "" if candidate.seconds is None else f"{candidate.seconds * 1e3:.1f}"
        is_original = candidate is self.candidates[0]  # its speed is 1 by definition
        speed = "" if candidate.speed is None or is_original else candidate.speed.format(digits=2)
        error = "" if candidate.error is None else f"{candidate.error:.0e}"
        outcome = candidate.refused or ("chosen" if candidate is self.chosen else "")
        return GridRow(cells=(str(candidate), seconds, speed, error, outcome))


def _pass_row(done: PassResult) -> GridRow:
    saved = done.saved
    numbers = (f"{-saved.operations:+d}", f"{-saved.flops / 1e9:+.2f}", f"{-saved.written / 1e6:+.1f}")
    return GridRow(cells=(done.name, str(len(done.places)), *numbers, _format_skipped(done)))


def _format_skipped(done: PassResult) -> str:
    """Return the reasons why a pass did not apply, each preceded by the names of the first few submodules that it concerns."""
    places: dict[str, list[str]] = {}
    for place, reason in done.skipped:
        places.setdefault(reason, []).append(place)
    return "; ".join(f"{format_names(names, MAX_PLACES)}: {reason}" for reason, names in places.items())
