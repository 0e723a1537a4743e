"""Show the progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zoo.common.rendering import PrintableConsole

__all__ = ["ConsoleWatcher", "Watcher"]

SILENCE_SECONDS = 30
"""The shortest time between two lines of progress if there is no progress bar."""


class Watcher(Protocol):
    """Shows the progress of a run."""

    def begin(self, total: int) -> None:
        """Start a new part of the run. This part has `total` steps, such as rounds or models to train."""

    def advance(self, what: str, count: int = 1) -> None:
        """Describe the latest step, and advance the progress by `count` steps."""

    def say(self, line: str) -> None:
        """Print a line."""

    def log(self, line: str) -> None:
        """Print a line only if there is no progress bar, since a bar shows the same information."""


class ConsoleWatcher:
    """Shows a progress bar on stderr if that is a terminal, and prints lines otherwise."""

    def __init__(self) -> None:
        console = PrintableConsole(file=sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,  # drawing the bar takes time from the measurement
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("preparing", total=None)
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, total: int) -> None:
        """Restart the bar with this number of steps."""
        self._progress.reset(self._task, total=total)

    def advance(self, what: str, count: int = 1) -> None:
        """Move the bar. If there is no bar, print the progress once `SILENCE_SECONDS` have passed since the last line."""
        self._progress.update(self._task, description=what, advance=count)
        if time.monotonic() - self._logged > SILENCE_SECONDS:
            self.log(f"{what}{self._format_progress()}")

    def _format_progress(self) -> str:
        (task,) = self._progress.tasks
        if task.total is None:
            return ""
        left = f", at most {timedelta(seconds=round(task.time_remaining))} left" if task.time_remaining else ""
        return f" ({task.completed:.0f} of {task.total:.0f}{left})"

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, emoji=False, soft_wrap=True)

    def log(self, line: str) -> None:
        """Print a line with the time of day if there is no bar."""
        self._logged = time.monotonic()
        if not self._progress.console.is_terminal:
            self.say(f"{datetime.now():%H:%M:%S} {line}")
