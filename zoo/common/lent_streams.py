"""Lend standard streams to foreign code, such as a plugin. It may close, detach or replace them; zoo's own stay unchanged."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["lend", "lend_streams"]


@contextmanager
def lend_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` within the `with` block by streams that write to the original ones.

    All threads share these streams. A thread that restores them could undo what another thread has changed in the meantime, so
    nothing is replaced outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(lend, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def lend(stream: TextIO) -> TextIO:
    """Return a stream that writes to `stream` at once; closing or detaching it leaves `stream` open. None stays None."""
    if not stream:  # a program without a console
        return stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lent_bytes: Any = _Lent(stream, encoding)
    return io.TextIOWrapper(lent_bytes, encoding, "backslashreplace", newline="\n", write_through=True)


class _Lent(io.BufferedIOBase):
    """The binary layer of a lent stream; it writes to the original text stream."""

    def __init__(self, stream: TextIO, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._descriptor: int | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._flush()  # text that was written earlier must come first
        binary = getattr(self._stream, "buffer", None)  # missing in a notebook's stream
        if binary is None:
            self._stream.write(bytes(data).decode(self._encoding, "replace"))
        else:
            binary.write(data)
        self._flush()
        return memoryview(data).nbytes

    def fileno(self) -> int:
        if self._descriptor is None:  # a duplicate, which the code may close as well
            self._descriptor = os.dup(self._stream.fileno())
        return self._descriptor

    def isatty(self) -> bool:
        is_terminal = getattr(self._stream, "isatty", None)  # may be missing: print() requires only `write`
        return is_terminal is not None and is_terminal()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        super().close()

    def _flush(self) -> None:
        if (flush := getattr(self._stream, "flush", None)) is not None:
            flush()
