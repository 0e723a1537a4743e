"""Run the code of plugins, models and data sets, and name that code in a message if it fails, exits or runs too long."""

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
"""The number of seconds after which a line on standard error names the code that is still running."""


class ForeignError(Exception):
    """Foreign code (a plugin, a model or a data set) raised an exception: any `BaseException`, kept as `__cause__`."""


@contextmanager
def plugin_code(
    what: str, *, avoidance: str, details: str = "", unchanged: tuple[type[ZooError], ...] = (ZooError,)
) -> Iterator[None]:
    """Run a plugin's code in the `with` block.

    Changes that the code makes to `sys.stdout` and `sys.stderr` are undone at the end of the block. If the code runs longer
    than `PATIENCE`, a line on standard error names it.

    Args:
        what: what is run, for messages, such as "Importing plugin 'mine'".
        avoidance: a sentence that says how to avoid running the code.
        details: text that follows the cause in the error message, before the final period.
        unchanged: the types of exceptions that pass through unchanged, since their messages are already clear.

    Raises:
        PluginError: the code raised any other exception, kept as `__cause__`.
        KeyboardInterrupt: the user interrupted the program.
    """
    try:
        with _warn_if_long(what, avoidance), lend_streams(), foreign_code(unchanged):
            yield
    except ForeignError as error:
        raise PluginError(f"{what} raised {error}{details}.") from error.__cause__


@contextmanager
def foreign_code(unchanged: tuple[type[ZooError], ...] = (ZooError,)) -> Iterator[None]:
    """Run foreign code, such as a model's, in the `with` block. Exceptions of the types in `unchanged` pass through.

    Raises:
        ForeignError: the code raised any other exception, such as a `SystemExit`, or a `KeyboardInterrupt` although the user
            did not interrupt the program.
        KeyboardInterrupt: the user interrupted the program, and the code did not turn the interrupt into an `Exception`.
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
    """Run foreign code in the `with` block, and prevent it from ending the program. Any `Exception` passes through.

    Args:
        what: what is run, for the message, such as "Training".

    Raises:
        PluginError: the code raised an exception that is not an `Exception`: a `SystemExit`, or a `KeyboardInterrupt` although
            the user did not interrupt the program.
        KeyboardInterrupt: the user interrupted the program, and the code did not turn the interrupt into an `Exception`.
    """
    with _watch_interrupts() as is_interrupted:
        try:
            yield
        except Exception:
            raise
        except BaseException as cause:
            if is_interrupted():
                raise KeyboardInterrupt from cause
            if isinstance(cause.__context__, KeyboardInterrupt):  # another library turned it into a SystemExit
                cause = cause.__context__
            raise PluginError(
                f"{what} was ended by {_describe(cause)}, raised by code of the model or of the data. That code must return "
                "normally, or raise an Exception."
            ) from cause


@contextmanager
def _warn_if_long(what: str, avoidance: str) -> Iterator[None]:
    """If the `with` block runs longer than `PATIENCE`, write a line to standard error: what runs, and how to avoid it."""
    line = printable(f"{what} has been running for {PATIENCE:g} s and may never end. {avoidance}\n")
    stream = sys.stderr  # the code in the block may replace it
    timer = threading.Timer(PATIENCE, lambda: stream and stream.write(line))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether the user has interrupted the program since the block began."""
    before = signal.getsignal(signal.SIGINT)
    is_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        if callable(before):
            before(number, frame)

    # Only the main thread receives signals. If no Python function handles SIGINT, an interrupt raises no exception.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: is_interrupted
    finally:
        if is_interrupted or signal.getsignal(signal.SIGINT) is interrupt:  # otherwise, the code has set its own handler
            signal.signal(signal.SIGINT, before)


def _describe(cause: BaseException) -> str:
    try:
        text = str(cause)
    except Exception as another:  # noqa: BLE001 - str() of an exception may run the plugin's code
        text = f"(its text raised {type(another).__name__})"
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
