"""Keep an executor for several runs, since starting its processes and their imports takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Self

from zoo.benchmark.running.local import Executor, Limits
from zoo.benchmark.running.sweep import ExecutorFactory

__all__ = ["KeptExecutor"]


class KeptExecutor:
    """An `ExecutorFactory` that gives a run the executor of the run before, if its limits and imports serve both.

    Args:
        make_executor: makes an executor if there is none that serves. It is closed with the `with` block of this object.
    """

    def __init__(self, make_executor: ExecutorFactory) -> None:
        self._make = make_executor
        self._open = ExitStack()
        self._kept: tuple[Limits, frozenset[str], Executor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, limits: Limits, preload: Sequence[str]) -> AbstractContextManager[Executor]:
        """Return a context manager that provides the executor, and does not close it."""
        if self._kept is None or self._kept[0] != limits or not self._kept[1].issuperset(preload):
            self._open.close()
            self._open = ExitStack()
            self._kept = (limits, frozenset(preload), self._open.enter_context(self._make(limits, preload)))
        return nullcontext(self._kept[2])
