"""Code of others is run so that whatever it raises, and however long it takes, is known to be its own."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from zoo.errors import ZooError
from zoo.printable import printable

__all__ = ["ForeignError", "foreign_code", "named_if_long"]

PATIENCE = 10.0
"""Seconds after which code that still runs is named on standard error."""


class ForeignError(Exception):
    """What somebody else's code raised, in words; `__cause__` is the exception itself, which need not be an `Exception`."""


@contextmanager
def foreign_code() -> Iterator[None]:
    """Run code of others within; a `ZooError` that it raises is raised as it is.

    Raises:
        ForeignError: it raised anything else, `KeyboardInterrupt` of its own and other `BaseException` included. The user's own
            interrupt is raised as it is.
    """
    with _interrupts() as is_interrupted:
        try:
            yield
        except ZooError:  # in words already
            raise
        except BaseException as cause:
            if isinstance(cause, KeyboardInterrupt) and is_interrupted():
                raise
            raise ForeignError(f"{type(cause).__name__}: {_text(cause)}") from cause


@contextmanager
def named_if_long(what: str, advice: str) -> Iterator[None]:
    """Say on standard error what runs within, and what to do, where it has not ended after `PATIENCE`."""
    line = f"{what} has been running for {PATIENCE:g} s and may never end. {advice}\n"
    timer = threading.Timer(PATIENCE, lambda: sys.stderr.write(printable(line)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the user has interrupted the program since."""
    before = signal.getsignal(signal.SIGINT)
    came = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        if callable(before):
            before(number, frame)

    # Only the main thread receives signals, and a signal that no Python function handles raises nothing.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: came
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


def _text(cause: BaseException) -> str:
    try:
        return str(cause)
    except Exception as another:  # noqa: BLE001 - the text of an exception is somebody else's code, too
        return f"(its text raised {type(another).__name__})"
