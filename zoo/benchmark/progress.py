"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["ConsoleWatcher", "Watcher"]


class Watcher(Protocol):
    """What the sweep tells as it goes."""

    def begin(self, total: int) -> None:
        """Announce how many slots there are to measure."""

    def advance(self, what: str, count: int = 1) -> None:
        """Say what has just been done, and how many slots that was."""

    def say(self, line: str) -> None:
        """Tell a fact that is worth a line of its own."""

    def log(self, line: str) -> None:
        """Tell what a bar shows anyway, where there is none."""


class ConsoleWatcher:
    """A progress bar on stderr where that is a terminal, else the worthwhile lines alone."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,  # what draws the bar runs beside what is measured
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("preparing", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, total: int) -> None:
        """Give the bar its length."""
        self._progress.update(self._task, total=total)

    def advance(self, what: str, count: int = 1) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=what, advance=count)

    def say(self, line: str) -> None:
        """Print above the bar."""
        self._progress.console.print(line, markup=False, emoji=False, soft_wrap=True)

    def log(self, line: str) -> None:
        """Print a line with the time, where there is no bar."""
        if not self._progress.console.is_terminal:
            self.say(f"{datetime.now():%H:%M:%S} {line}")
