"""Run tasks in a child process: read one task per line of input, and write one line for each value that a task yields.

`child_process.py` starts this module as `python -m zoo.common.child_worker`. The process imports the modules that the tasks
need, which takes seconds, and then forks for each task. It starts no thread and opens no device before it forks, so a fork has
the imported modules but is otherwise like a fresh process. If forks are unavailable or unsafe, or if a fork cannot use the
device, the process runs a single task itself and then ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = ["main"]

FORKABLE = ("cpu", "cuda")
"""The types of devices that a forked process can use, provided that its parent process has not initialized them."""


def main() -> None:
    """Run tasks until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # text that plugins print must not mix with the messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends this process
    _offer_to_the_kernel()
    first = json.loads(sys.stdin.readline())
    _import(first["preload"])
    for line in iter(sys.stdin.readline, ""):
        task = json.loads(line)
        status = _do_in_fork(task, channel) if _can_fork(task["device"]) else None
        if status is None:
            _do(task, channel)
            return
        _write(channel, "end", status)


def _can_fork(device: str) -> bool:
    # macOS has fork, but its system libraries may crash in a forked process
    return hasattr(os, "fork") and sys.platform != "darwin" and device.partition(":")[0] in FORKABLE


def _do_in_fork(task: dict[str, Any], channel: TextIO) -> int | None:
    """Run a task in a fork of this process. Return the fork's exit status, or None if the fork cannot use the device."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        can_use = _can_use(task["device"])
        os.write(writing, b"y" if can_use else b"n")
        os.close(writing)
        if can_use:
            _do(task, channel)
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 1)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return None if answer == b"n" else os.waitstatus_to_exitcode(status)


def _can_use(device: str) -> bool:
    """Return whether this fork can use the device. It cannot use CUDA if the parent process has initialized CUDA."""
    if device == "cpu":
        return True
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # an AssertionError if PyTorch was built without the device
        return False
    return True


def _do(task: dict[str, Any], channel: TextIO) -> None:
    """Run one task in this process. If the process that requested the task ends first, end this process as well."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.path[:] = task["path"]
    _write(channel, "begin", os.getpid())
    try:
        module, _, name = task["function"].partition(":")
        for value in getattr(importlib.import_module(module), name)(**task["arguments"]):
            _write(channel, "yield", value)
        _write(channel, "done")
    except BaseException:  # noqa: BLE001 - the traceback goes to stderr
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _end_with_input() -> None:
    """Wait for the end of the input, then end this process: the process that requests tasks has ended or closed the input."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _write(channel: TextIO, kind: str, *values: Any) -> None:
    channel.write(json.dumps([kind, *values]) + "\n")
    channel.flush()


def _import(names: list[str]) -> None:
    """Import the modules that the tasks will need. Ignore errors: the task repeats a failed import and then reports the error.

    The imported objects are frozen. Otherwise the garbage collector would visit all of them in each fork, which takes a quarter
    of a second and copies memory that the fork shares with its parent.
    """
    gc.disable()  # imports create hardly any garbage
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    if "torch" in sys.modules:
        _import_lazy_parts_of_torch()
    gc.freeze()
    gc.enable()


def _import_lazy_parts_of_torch() -> None:
    """Make torch import its compiler, which takes a second.

    Drawing a random number on the meta device imports the compiler. So does building any model on this device.
    """
    import torch

    torch.empty(1, device="meta").normal_()


def _offer_to_the_kernel() -> None:
    """If memory runs out, make the kernel kill this process rather than the process that stores the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
