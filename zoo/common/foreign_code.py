"""Code of others is run so that whatever it raises, and however long it takes, is known to be its own."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from zoo.common.lent_streams import lend_streams
from zoo.common.printable import printable
from zoo.errors import PluginError, ZooError

__all__ = ["ForeignError", "foreign_code", "no_exits", "plugin_code"]

PATIENCE = 10.0
"""Seconds after which code that still runs is named on standard error."""


class ForeignError(Exception):
    """What somebody else's code raised, in words; `__cause__` is the exception itself, which need not be an `Exception`."""


@contextmanager
def plugin_code(what: str, advice: str) -> Iterator[None]:
    """Run a plugin's code within as `foreign_code` does, with standard streams of its own, and name it where it runs long.

    What it does to `sys.stdout` and `sys.stderr` ends with it.

    Args:
        what: runs, for the line on standard error that names it after `PATIENCE`: "Importing plugin 'mine'".
        advice: how to do without it.

    Raises:
        ForeignError: it raised anything but a `ZooError`.
        KeyboardInterrupt: the user's own.
    """
    with _named_if_long(what, advice), lend_streams(), foreign_code():
        yield


@contextmanager
def foreign_code() -> Iterator[None]:
    """Run code of others within, such as a model's; a `ZooError` that it raises is raised as it is.

    Raises:
        ForeignError: it raised anything else, `KeyboardInterrupt` of its own and other `BaseException` included.
        KeyboardInterrupt: the user's own, whatever the code made of it.
    """
    with _interrupts() as is_interrupted:
        try:
            yield
        except ZooError:  # in words already
            raise
        except BaseException as cause:
            if is_interrupted() and not isinstance(cause, Exception):
                raise KeyboardInterrupt from cause
            raise ForeignError(_told(cause)) from cause


@contextmanager
def no_exits(what: str) -> Iterator[None]:
    """Run code of others within, which cannot end the program; an `Exception` that it raises is raised as it is.

    Args:
        what: is done by it, such as "Training".

    Raises:
        PluginError: it raised what is no `Exception`: `SystemExit`, or `KeyboardInterrupt` of its own.
        KeyboardInterrupt: the user's own, whatever the code made of it.
    """
    with _interrupts() as is_interrupted:
        try:
            yield
        except Exception:
            raise
        except BaseException as cause:
            if is_interrupted():
                raise KeyboardInterrupt from cause
            if isinstance(cause.__context__, KeyboardInterrupt):  # which another library made an exit of
                cause = cause.__context__
            raise PluginError(
                f"{what} was ended by {_told(cause)}, which code of the model or of the data raised. "
                "Let it raise an Exception, or return."
            ) from cause


@contextmanager
def _named_if_long(what: str, advice: str) -> Iterator[None]:
    """Say on standard error what runs within, and what to do, where it has not ended after `PATIENCE`."""
    line = printable(f"{what} has been running for {PATIENCE:g} s and may never end. {advice}\n")
    stream = sys.stderr  # the code within may replace it
    timer = threading.Timer(PATIENCE, lambda: stream and stream.write(line))
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
        if came or signal.getsignal(signal.SIGINT) is interrupt:  # who ends in good order may have had it ignored
            signal.signal(signal.SIGINT, before)


def _told(cause: BaseException) -> str:
    try:
        text = str(cause)
    except Exception as another:  # noqa: BLE001 - the text of an exception is somebody else's code, too
        text = f"(its text raised {type(another).__name__})"
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
