"""Check pairings in child processes, so that a crash or a hang is the error of one cell."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence

from zoo.benchmark.matrix.cells import Cell, Outcome
from zoo.common.child_process import ChildProcess, StepTimer, Task, describe_end

__all__ = ["check_here", "check_in_processes"]

Pairing = tuple[str, str]
"""The ids of an encoder and a decoder."""

CHECKS_PER_FORK = 200
"""The number of checks before a fresh fork, which bounds the memory that libraries never release."""


def check_here(pairings: Sequence[Pairing]) -> Iterator[Outcome]:
    """Yield the outcome of each pairing, in order: for pairings that no other process can make."""
    for pairing in pairings:
        from zoo.benchmark.matrix.check import check  # imports torch, which is not needed without pairings

        yield check(*pairing)


def check_in_processes(pairings: Sequence[Pairing], jobs: int, limit: float, preload: Sequence[str] = ()) -> Generator[Outcome]:
    """Yield the outcome of each pairing, in the order in which they are done.

    Args:
        pairings: to check.
        jobs: how many processes check at a time.
        limit: seconds for one check.
        preload: modules that the checks import.
    """
    size = min(CHECKS_PER_FORK, -(-len(pairings) // (4 * jobs)))
    shares: queue.SimpleQueue[Sequence[Pairing]] = queue.SimpleQueue()
    for first in range(0, len(pairings), size or 1):
        shares.put(pairings[first : first + size])
    outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    checkers = [_Checker(limit, preload) for _ in range(min(jobs, shares.qsize()))]
    try:
        threads = [threading.Thread(target=checker.work, args=(shares, outcomes), daemon=True) for checker in checkers]
        for thread in threads:
            thread.start()
        for _ in pairings:
            outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
        for thread in threads:
            thread.join()
    finally:
        for checker in checkers:
            checker.close()


class _Checker:
    """Checks shares of pairings in one child process, and in another where that one ends."""

    def __init__(self, limit: float, preload: Sequence[str]) -> None:
        self._limit = limit
        self._preload = ["zoo.benchmark.matrix.check", *preload]
        self._child: ChildProcess | None = None
        self._closed = threading.Event()

    def work(self, shares: queue.SimpleQueue[Sequence[Pairing]], outcomes: queue.SimpleQueue[Outcome | BaseException]) -> None:
        """Check one share after the other until none is left."""
        try:
            while not self._closed.is_set():
                for outcome in self._check(shares.get_nowait()):
                    outcomes.put(outcome)
        except queue.Empty:
            self.close()
        except BaseException as cause:  # noqa: BLE001 - raised in the thread that waits for the outcomes
            outcomes.put(cause)

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        if self._child:
            self._child.close()

    def _check(self, pairings: Sequence[Pairing]) -> Iterator[Outcome]:
        left = list(pairings)
        while left and not self._closed.is_set():
            if self._child is None or self._child.has_ended:
                if self._child:
                    self._child.close()
                self._child = ChildProcess(self._preload)
                if self._closed.is_set():  # while the child process started
                    self._child.close()
                    return
            watch = _Watch(self._limit)
            task = Task(function="zoo.benchmark.matrix.check:check_all", arguments={"pairings": left})
            for facts in self._child.run(task, watch):
                if facts is not None:  # None says that a check has begun
                    yield Outcome.from_dict(facts)
                    del left[0]
            if left and not self._closed.is_set():
                yield _death(left.pop(0), watch, self._child)


class _Watch:
    """Ends a check that takes too long."""

    def __init__(self, limit: float) -> None:
        self._timer = StepTimer(limit)
        self.is_hung = False

    @property
    def limit(self) -> float:
        """Seconds for the present step."""
        return self._timer.limit

    def heard(self) -> None:
        self._timer.heard()

    def judge(self, process: int | None) -> bool:
        self.is_hung = self._timer.is_over
        return self.is_hung


def _death(pairing: Pairing, watch: _Watch, child: ChildProcess) -> Outcome:
    """Return the outcome of a pairing whose check ended its process."""
    encoder, decoder = pairing
    if watch.is_hung:
        error = f"HangError: its check had not ended after {watch.limit:g} s. A higher limit (--limit) gives it more time."
    else:
        error = f"CrashError: the process that checked it {describe_end(child.status)}.{child.last_words()}"
    return Outcome(cell=Cell(encoder=encoder, decoder=decoder, error=error), is_lasting=False)
