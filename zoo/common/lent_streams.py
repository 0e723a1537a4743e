"""Lend standard streams to foreign code, such as a plugin. If that code closes or replaces them, zoo's streams stay open."""

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

    Outside of the main thread, nothing is replaced: all threads share `sys.stdout` and `sys.stderr`, so a thread that restores
    them could undo what another thread has changed in the meantime.
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
    """Return a stream that passes all text on to `stream` immediately. For None, return None.

    Closing or detaching the returned stream leaves `stream` open.
    """
    if not stream:  # a program without a console
        return stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lent_bytes: Any = _Lent(stream, encoding)
    return io.TextIOWrapper(lent_bytes, encoding, "backslashreplace", newline="\n", write_through=True)


class _Lent(io.BufferedIOBase):
    """The binary layer of a lent stream. It writes to the original text stream."""

    def __init__(self, stream: TextIO, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._descriptor: int | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._flush()  # text that is still in the buffer of the original stream must come first
        binary = getattr(self._stream, "buffer", None)  # missing in a notebook's stream
        if binary is None:
            self._stream.write(bytes(data).decode(self._encoding, "replace"))
        else:
            binary.write(data)
        self._flush()
        return memoryview(data).nbytes

    def fileno(self) -> int:
        if self._descriptor is None:  # a duplicate, so that the code may close it
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
