"""Check pairings in child processes, so that a crash or a hang affects only the cell of one pairing."""

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
"""The largest number of checks in one forked process. A limit is needed because some libraries never release their memory."""


def check_here(pairings: Sequence[Pairing]) -> Iterator[Outcome]:
    """Check pairings that only this process can build, and yield their outcomes in order."""
    for pairing in pairings:
        from zoo.benchmark.matrix.check import check  # imports torch, which is not needed without pairings

        yield check(*pairing)


def check_in_processes(pairings: Sequence[Pairing], jobs: int, limit: float, preload: Sequence[str] = ()) -> Generator[Outcome]:
    """Check pairings in child processes, and yield the outcome of each pairing as soon as its check has ended.

    Args:
        pairings: the pairings to check.
        jobs: the number of processes that check at the same time.
        limit: how many seconds one check may take.
        preload: the modules that each process imports before the checks.
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
    """Checks pairings in a child process. If the process ends, a new process is started."""

    def __init__(self, limit: float, preload: Sequence[str]) -> None:
        self._limit = limit
        self._preload = ["zoo.benchmark.matrix.check", *preload]
        self._child: ChildProcess | None = None
        self._closed = threading.Event()

    def work(self, shares: queue.SimpleQueue[Sequence[Pairing]], outcomes: queue.SimpleQueue[Outcome | BaseException]) -> None:
        """Take one list of pairings after another from `shares`, and check them, until no list is left."""
        try:
            while not self._closed.is_set():
                for outcome in self._check(shares.get_nowait()):
                    outcomes.put(outcome)
        except queue.Empty:
            self.close()
        except BaseException as cause:  # noqa: BLE001 - raised in the thread that waits for the outcomes
            outcomes.put(cause)

    def close(self) -> None:
        """Stop checking, and end the child process."""
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
                if self._closed.is_set():  # closed while the child process was starting
                    self._child.close()
                    return
            watch = _Watch(self._limit)
            task = Task(function="zoo.benchmark.matrix.check:check_all", arguments={"pairings": left})
            for facts in self._child.run(task, watch):
                if facts is not None:  # None reports that a check has begun
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
        """How many seconds the current step may take."""
        return self._timer.limit

    def heard(self) -> None:
        self._timer.heard()

    def judge(self, process: int | None) -> bool:
        self.is_hung = self._timer.is_over
        return self.is_hung


def _death(pairing: Pairing, watch: _Watch, child: ChildProcess) -> Outcome:
    """Return the outcome of a pairing whose check crashed the process, or took so long that the process was killed."""
    encoder, decoder = pairing
    if watch.is_hung:
        error = f"HangError: the check did not end within {watch.limit:g} s. Set a higher limit (--limit) to allow more time."
    else:
        error = f"CrashError: the process of the check {describe_end(child.status)}.{child.last_words()}"
    return Outcome(cell=Cell(encoder=encoder, decoder=decoder, error=error), is_lasting=False)
