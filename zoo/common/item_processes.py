"""Process many items in child processes, so that a crash or a hang affects only one item."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.common.child_process import ChildProcess, StepTimer, Task, describe_end

__all__ = ["ItemResult", "ItemWork", "process_items"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemWork:
    """What is done with each item.

    Attributes:
        function: the path `package.module:name` of a generator function. It is called with `items` and the further `arguments`.
            For each item, it yields None when it begins, and a JSON-serializable dictionary when it ends.
        arguments: the further keyword arguments.
        limit: how many seconds one item may take.
        preload: the modules that each process imports before it begins.
        per_fork: the largest number of items in one forked process.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limit: float
    preload: Sequence[str] = ()
    per_fork: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """The result of one item.

    Attributes:
        item: the item.
        facts: what the function yielded; None if the process ended before.
        error: why the process ended, in words: that it hung or crashed; "" if there are `facts`.
    """

    item: Any
    facts: dict[str, Any] | None
    error: str = ""


def process_items(items: Sequence[Any], work: ItemWork, jobs: int) -> Generator[ItemResult]:
    """Process JSON-serializable items in child processes, and yield the result of each item as soon as it is there.

    Args:
        items: the items.
        work: what is done with each.
        jobs: the number of processes that work at the same time.
    """
    size = min(work.per_fork, -(-len(items) // (4 * jobs)))
    shares: queue.SimpleQueue[Sequence[Any]] = queue.SimpleQueue()
    for first in range(0, len(items), size or 1):
        shares.put(items[first : first + size])
    results: queue.SimpleQueue[ItemResult | BaseException] = queue.SimpleQueue()
    workers = [_Worker(work) for _ in range(min(jobs, shares.qsize()))]
    try:
        threads = [threading.Thread(target=worker.work, args=(shares, results), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        for _ in items:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """Processes items in a child process. If the process ends, a new process is started."""

    def __init__(self, work: ItemWork) -> None:
        self._work = work
        self._preload = [work.function.partition(":")[0], *work.preload]
        self._child: ChildProcess | None = None
        self._closed = threading.Event()

    def work(self, shares: queue.SimpleQueue[Sequence[Any]], results: queue.SimpleQueue[ItemResult | BaseException]) -> None:
        """Take one list of items after another from `shares`, and process them, until no list is left."""
        try:
            while not self._closed.is_set():
                for result in self._process(shares.get_nowait()):
                    results.put(result)
        except queue.Empty:
            self.close()
        except BaseException as cause:  # noqa: BLE001 - raised in the thread that waits for the results
            results.put(cause)

    def close(self) -> None:
        """Stop working, and end the child process."""
        self._closed.set()
        if self._child:
            self._child.close()

    def _process(self, items: Sequence[Any]) -> Iterator[ItemResult]:
        left = list(items)
        while left and not self._closed.is_set():
            if self._child is None or self._child.has_ended:
                if self._child:
                    self._child.close()
                self._child = ChildProcess(self._preload)
                if self._closed.is_set():  # closed while the child process was starting
                    self._child.close()
                    return
            watch = _Watch(self._work.limit)
            task = Task(function=self._work.function, arguments={"items": left, **self._work.arguments})
            for facts in self._child.run(task, watch):
                if facts is not None:  # None reports that an item has begun
                    yield ItemResult(item=left.pop(0), facts=facts)
            if left and not self._closed.is_set():
                yield ItemResult(item=left.pop(0), facts=None, error=_describe_death(watch, self._child))


class _Watch:
    """Ends a process that takes too long for an item."""

    def __init__(self, limit: float) -> None:
        self._timer = StepTimer(limit)
        self.is_hung = False

    @property
    def limit(self) -> float:
        """How many seconds the current step may take."""
        return self._timer.limit

    def heard(self) -> None:
        self._timer.heard()

    def judge(self, process: int | None) -> bool:
        self.is_hung = self._timer.is_over
        return self.is_hung


def _describe_death(watch: _Watch, child: ChildProcess) -> str:
    """Return why a process ended before its item was done."""
    if watch.is_hung:
        return f"HangError: it did not end within {watch.limit:g} s."
    return f"CrashError: its process {describe_end(child.status)}.{child.last_words()}"
