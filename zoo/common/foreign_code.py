"""Run the code of plugins, models and data so that an error, an exit or a long wait is reported as theirs."""

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
    """Describes what somebody else's code raised; `__cause__` is the exception itself, which need not be an `Exception`."""


@contextmanager
def plugin_code(
    what: str, *, avoidance: str, details: str = "", unchanged: tuple[type[ZooError], ...] = (ZooError,)
) -> Iterator[None]:
    """Run a plugin's code within, with standard streams of its own, and name it on standard error if it runs long.

    What it does to `sys.stdout` and `sys.stderr` ends with it.

    Args:
        what: names the code in messages: "Importing plugin 'mine'".
        avoidance: says how to do without it.
        details: follows the cause in the error's message, before the final period.
        unchanged: exceptions that pass through as they are, since their messages are clear already.

    Raises:
        PluginError: it raised anything else; `__cause__` is its own exception.
        KeyboardInterrupt: the user's own.
    """
    try:
        with _warn_if_long(what, avoidance), lend_streams(), foreign_code(unchanged):
            yield
    except ForeignError as error:
        raise PluginError(f"{what} raised {error}{details}.") from error.__cause__


@contextmanager
def foreign_code(unchanged: tuple[type[ZooError], ...] = (ZooError,)) -> Iterator[None]:
    """Run code of others within, such as a model's; exceptions that are `unchanged` pass through.

    Raises:
        ForeignError: it raised anything else, `KeyboardInterrupt` of its own and other `BaseException` included.
        KeyboardInterrupt: the user's own, whatever the code made of it.
    """
    with _watch_interrupts() as is_interrupted:
        try:
            yield
        except unchanged:
            raise
        except BaseException as cause:
            if is_interrupted() and not isinstance(cause, Exception):
                raise KeyboardInterrupt from cause
            raise ForeignError(_describe(cause)) from cause


@contextmanager
def no_exits(what: str) -> Iterator[None]:
    """Run code of others within, and keep it from ending the program; an `Exception` that it raises passes through.

    Args:
        what: names the work in the message, such as "Training".

    Raises:
        PluginError: it raised an exception of another kind: `SystemExit`, or `KeyboardInterrupt` of its own.
        KeyboardInterrupt: the user's own, whatever the code made of it.
    """
    with _watch_interrupts() as is_interrupted:
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
                f"{what} was ended by {_describe(cause)}, which code of the model or of the data raised. "
                "Let it raise an Exception, or return."
            ) from cause


@contextmanager
def _warn_if_long(what: str, avoidance: str) -> Iterator[None]:
    """Name the code within on standard error, and say how to avoid it, if it has not ended after `PATIENCE`."""
    line = printable(f"{what} has been running for {PATIENCE:g} s and may never end. {avoidance}\n")
    stream = sys.stderr  # the code within may replace it
    timer = threading.Timer(PATIENCE, lambda: stream and stream.write(line))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user has interrupted the program since."""
    before = signal.getsignal(signal.SIGINT)
    is_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        if callable(before):
            before(number, frame)

    # Only the main thread receives signals, and a signal that no Python function handles raises nothing.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: is_interrupted
    finally:
        if is_interrupted or signal.getsignal(signal.SIGINT) is interrupt:  # code that ended well may have set another handler
            signal.signal(signal.SIGINT, before)


def _describe(cause: BaseException) -> str:
    try:
        text = str(cause)
    except Exception as another:  # noqa: BLE001 - the text of an exception is somebody else's code, too
        text = f"(its text raised {type(another).__name__})"
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
