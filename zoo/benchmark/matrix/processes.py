"""Many checks, one after the other or in fresh processes; a process that dies is its cell's error, and ends nothing else."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING

from zoo.benchmark.matrix.cells import Cell
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.benchmark.matrix.check import Outcome

__all__ = ["check_here", "check_in_processes"]

CHECKS_PER_PROCESS = 200
"""After about so many the processes are replaced by fresh ones, which bounds the memory that libraries never give back."""


def check_here(pairings: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
    """Yield the outcome of each pairing, in their order; torch is imported where there is one."""
    for pairing in pairings:
        yield _check(*pairing)


def check_in_processes(pairings: Sequence[tuple[str, str]], jobs: int) -> Generator[Outcome]:
    """Yield the outcome of each pairing, in the order in which they are done.

    The executor's own `max_tasks_per_child` would give fresh processes, but hangs from Python 3.11 on (cpython#115634, mended
    in 2026), so each share of the pairings has an executor of its own. Where one of its processes dies, what was not done is
    done again by a single one, in order, which tells the pairing that it dies of.

    Raises:
        OptionError: no process can be started.
    """
    left, workers = list(pairings), jobs
    while left:
        share, later = left[: jobs * CHECKS_PER_PROCESS], left[jobs * CHECKS_PER_PROCESS :]
        done = set()
        for outcome in _share(share, workers):
            done.add((outcome.cell.encoder, outcome.cell.decoder))
            yield outcome
        undone = [pairing for pairing in share if pairing not in done]
        if undone and workers == 1:
            yield _death(*undone.pop(0))
            workers = jobs
        else:
            workers = 1 if undone else jobs
        left = [*undone, *later]


def _share(pairings: Sequence[tuple[str, str]], workers: int) -> Iterator[Outcome]:
    """Yield the outcomes of what is done before a process dies, if one does."""
    context = multiprocessing.get_context("spawn")  # a fork of a process that has run torch may hang
    executor = ProcessPoolExecutor(min(workers, len(pairings)), mp_context=context, initializer=_prepare)
    futures: list[Future[Outcome]] = []
    try:
        began = executor.submit(_began)
        with suppress(BrokenProcessPool):
            futures.extend(executor.submit(_check, *pairing) for pairing in pairings)
        if began.exception() is not None:
            raise OptionError(
                "The processes that jobs= asks for cannot be started. A script that asks for them keeps what it does under "
                '`if __name__ == "__main__":`, since each process imports it; or use jobs=1.'
            )
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare() -> None:
    """Run first in each process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # on Ctrl-C it ends at once and in silence
    import torch

    torch.set_num_threads(1)


def _began() -> None:
    """Do nothing: that a process did it tells that processes start."""


def _check(encoder: str, decoder: str) -> Outcome:
    from zoo.benchmark.matrix.check import check

    return check(encoder, decoder)


def _death(encoder: str, decoder: str) -> Outcome:
    from zoo.benchmark.matrix.check import Outcome

    error = "BrokenProcessPool: the process that built it died, as one does that runs out of memory."
    return Outcome(cell=Cell(encoder=encoder, decoder=decoder, error=error), is_lasting=False)
