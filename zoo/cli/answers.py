"""Write the answer of a command to standard output. Whatever plugins print goes to standard error instead."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.common.lent_streams import lend
from zoo.common.printable import printable
from zoo.errors import OptionError, PluginError

if TYPE_CHECKING:
    from zoo.common.grid import Part

__all__ = ["Application", "answer", "error_stream", "note", "show_parts"]

_F = TypeVar("_F", bound=Callable[..., Any])

_STREAM: ContextVar[TextIO] = ContextVar("_STREAM")
"""The stream for the answer of the running command."""
_ERROR_STREAM: ContextVar[TextIO] = ContextVar("_ERROR_STREAM")
"""The stream for the notes and errors of the running command, even if a plugin replaces `sys.stderr`."""


class _Command(TyperCommand):
    """A command that runs with the garbage collector on, and that writes only its answer to standard output."""

    def invoke(self, ctx: Any) -> Any:
        if not gc.isenabled():  # the `zoo` script switches it off, to start faster
            gc.freeze()  # the modules imported so far are never freed, so the collector can skip them
            gc.enable()
        with _redirect_strays():
            try:
                return super().invoke(ctx)
            except SystemExit as stop:
                if stop.code:
                    raise
                raise PluginError(  # zoo's own commands exit with 0 only by returning
                    "The code of a plugin ended the command before its answer (sys.exit). Leave that plugin out, or fix it."
                ) from stop


PANELS = {
    "Pair": ("list", "show", "explain", "negotiate", "matrix"),
    "Measure": (
        "bench",
        "table",
        "compare",
        "recommend",
        "search",
        "calibrate",
        "estimate",
        "report",
        "runs",
        "export-results",
    ),
    "Train": ("train", "data"),
    "Use": ("predict", "export"),
    "Extend": ("new", "plugins", "schema"),
}
"""The panels of `zoo --help` and their commands, in order."""


class _Group(TyperGroup):
    """A group of commands, whose help shows them in the panels and the order of `PANELS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in PANELS.values() for name in names]
        for panel, names in PANELS.items():
            for name in names:
                if name in self.commands:
                    vars(self.commands[name])["rich_help_panel"] = panel
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))


class Application(typer.Typer):
    """A Typer application whose commands write to standard output only through `answer` and `show_parts`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, **options)

    def command(self, *arguments: Any, **options: Any) -> Callable[[_F], _F]:
        """Return a decorator that adds a command, as the method of `typer.Typer` does."""
        return super().command(*arguments, **{"cls": _Command} | options)


def answer(text: object, *, nl: bool = True) -> None:
    """Write a part of a command's answer to standard output."""
    stream = _stream()
    if stream is None:  # standard output is closed
        return
    try:
        stream.write(printable(str(text)) + "\n" * nl)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as cause:
        raise OptionError(f"The standard output cannot be written: {cause.strerror}.") from cause


def note(text: object) -> None:
    """Write a line to standard error. The line is not part of the command's answer."""
    stream = error_stream()
    if stream is not None:
        stream.write(printable(str(text)) + "\n")
        stream.flush()


def show_parts(*parts: Part) -> None:
    """Write tables and lines to standard output. The width is that of the terminal or, without a terminal, `FULL_WIDTH`."""
    from zoo.common.grid import draw
    from zoo.common.rendering import FULL_WIDTH, PrintableConsole

    console = PrintableConsole(file=_stream(), highlight=False)
    if not console.is_terminal:
        console.width = FULL_WIDTH
    console.print(draw(parts, console.width))


def error_stream() -> TextIO:
    """Return the stream for notes and errors."""
    return _ERROR_STREAM.get(None) or sys.stderr


def _stream() -> TextIO | None:
    return _STREAM.get(None) or sys.stdout


@contextmanager
def _redirect_strays() -> Iterator[None]:
    """Redirect everything that is written to standard output or to descriptor 1, except the answer, to standard error."""
    output, errors = sys.stdout, sys.stderr
    try:
        output.flush()
        descriptor = os.dup(1)
        os.dup2(2, 1)
    except (AttributeError, OSError):  # standard output or standard error is closed
        yield
        return
    stream = os.fdopen(descriptor, "w", encoding=output.encoding, errors="backslashreplace") if _is_process_output() else output
    tokens = _STREAM.set(stream), _ERROR_STREAM.set(errors)
    sys.stdout, sys.stderr = lend(errors), lend(errors)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = output, errors
        _STREAM.reset(tokens[0])
        _ERROR_STREAM.reset(tokens[1])
        _flush_strays(output)
        os.dup2(descriptor, 1)
        if stream is output:
            os.close(descriptor)
        else:
            with suppress(OSError):  # `answer` has flushed the stream, or is raising this error
                stream.close()


def _is_process_output() -> bool:
    """Return whether `sys.stdout` writes to descriptor 1. In a test or a notebook, it may write elsewhere."""
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError):
        return False


def _flush_strays(output: TextIO) -> None:
    """Flush the output buffers of Python and of C. Call it while descriptor 1 still refers to standard error."""
    with suppress(OSError, ValueError):  # a plugin has closed the stream
        output.flush()
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
