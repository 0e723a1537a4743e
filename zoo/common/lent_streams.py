"""Standard streams for code of others: it may close, detach or replace them, and nobody else's are changed."""

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
    """Give the code within a `sys.stdout` and a `sys.stderr` of its own, which write to those that were there.

    The streams are the whole program's: in another thread than the main one nothing is lent, since a thread that puts back
    what it found would undo what another one has done meanwhile.
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
    """Return a stream that writes to this one at once; closing or detaching it leaves this one open. None stays None."""
    if not stream:  # a program without a console
        return stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lent_bytes: Any = _Lent(stream, encoding)
    return io.TextIOWrapper(lent_bytes, encoding, "backslashreplace", newline="\n", write_through=True)


class _Lent(io.BufferedIOBase):
    """The bytes' side of a text stream that belongs to somebody else."""

    def __init__(self, stream: TextIO, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._descriptor: int | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._flush()  # what was written as text comes first
        binary = getattr(self._stream, "buffer", None)  # a notebook's has none
        if binary is None:
            self._stream.write(bytes(data).decode(self._encoding, "replace"))
        else:
            binary.write(data)
        self._flush()
        return memoryview(data).nbytes

    def fileno(self) -> int:
        if self._descriptor is None:  # one that may be closed, too
            self._descriptor = os.dup(self._stream.fileno())
        return self._descriptor

    def isatty(self) -> bool:
        is_terminal = getattr(self._stream, "isatty", None)  # print() asks for `write` alone
        return is_terminal is not None and is_terminal()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        super().close()

    def _flush(self) -> None:
        if (flush := getattr(self._stream, "flush", None)) is not None:
            flush()
