"""What deploying a model came to, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.common.format_names import format_names
from zoo.common.rendering import plain_text
from zoo.inference.deployment.choice import Candidate
from zoo.inference.deployment.passes import Done

__all__ = ["DeployReport"]

SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """What was done to a model, tried and chosen.

    Attributes:
        shape: the example's, (N, C, H, W).
        device: that it ran on.
        threads: PyTorch's threads on the CPU.
        tolerance: the relative error that was asked for.
        accepted: the one that was accepted: more, where the model as it was given computes in less than float32.
        passes: what each did, in order.
        candidates: what was tried, the model as it was given first.
        chosen: the one that runs.
        unread: why there is no graph of the model, and nothing but itself to run; None where there is.
    """

    shape: tuple[int, ...]
    device: str
    threads: int
    tolerance: float
    accepted: float
    passes: tuple[Done, ...]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    unread: str | None = None

    def __str__(self) -> str:
        return plain_text(self.view(), width=120).rstrip()

    def view(self) -> RenderableType:
        """Return the report as something rich can print."""
        shape = "x".join(map(str, self.shape))
        where = f"{self.device}, {self.threads} threads" if self.device == "cpu" else self.device
        title = f"Deployed for {shape} on {where}, tolerance {self.tolerance:g}: {self.chosen}"
        tables: list[RenderableType] = [Text(title, style="bold")]
        if self.accepted > self.tolerance:
            own = self.candidates[0].error
            told = (
                f"The model as given multiplies in TF32 and is {own:.1e} from float32; up to {self.accepted:.1e} is accepted."
            )
            tables.append(Text(told))
        if self.unread:
            tables.append(Text(self.unread))
        return Group(*tables, *([self._passes_table()] if self.passes else []), self._candidates_table())

    def _passes_table(self) -> Table:
        table = _table("pass", "places", "operations", "GFLOPs", "MB written", "not applied")
        for done in self.passes:
            saved = done.saved
            numbers = (f"{-saved.operations:+d}", f"{-saved.flops / 1e9:+.2f}", f"{-saved.written / 1e6:+.1f}")
            table.add_row(*map(Text, (done.name, str(len(done.places)), *numbers, _left(done))))
        return table

    def _candidates_table(self) -> Table:
        table = _table("runtime", "ms", "times as fast", "error", "")
        for each in self.candidates:
            seconds = "" if each.seconds is None else f"{each.seconds * 1e3:.1f}"
            speed = "" if each.speed is None or each is self.candidates[0] else each.speed.told(digits=2)
            error = "" if each.error is None else f"{each.error:.0e}"
            said = each.refused or ("chosen" if each is self.chosen else "")
            table.add_row(*map(Text, (str(each), seconds, speed, error, said)))
        return table


def _left(done: Done) -> str:
    """Return why the pass did not apply where it might have, with the places."""
    by_reason: dict[str, list[str]] = {}
    for place, why in done.left:
        by_reason.setdefault(why, []).append(place)
    return "; ".join(f"{format_names(places, SHOWN)}: {why}" for why, places in by_reason.items())


def _table(*headings: str) -> Table:
    table = Table(header_style="bold")
    for index, heading in enumerate(headings):
        is_text = index == 0 or index == len(headings) - 1
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    return table
