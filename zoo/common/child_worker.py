"""The child process that does tasks: it reads one task per line, and writes a line for each value that a task yields.

`child_process.py` starts it as `python -m zoo.common.child_worker`. It imports once what the tasks need, which takes seconds,
and forks for each task. This process starts no thread and opens no device, so a fork is a fresh process apart from the imports.
Where forks are not available or not safe, or cannot use the device, this process does one task itself and ends.
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
"""The devices that a fork can use, if they were not opened before."""


def main() -> None:
    """Do tasks until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # text that plugins print is not a message
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked; it ends this one
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
    """Do a task in a fork of this process and return its exit status, or None if the fork cannot use the device."""
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
    """Whether this fork can use the device. CUDA refuses if the parent process has opened it, for example in an import."""
    if device == "cpu":
        return True
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # the latter from a PyTorch built without the device
        return False
    return True


def _do(task: dict[str, Any], channel: TextIO) -> None:
    """Do one task in this process, which ends when the process that requested it is gone."""
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
    """End this process when its input ends: the process that requested tasks is gone, or has no more."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _write(channel: TextIO, kind: str, *values: Any) -> None:
    channel.write(json.dumps([kind, *values]) + "\n")
    channel.flush()


def _import(names: list[str]) -> None:
    """Import what the tasks will need. An import that fails here fails again in the task, which reports it.

    The imports are frozen: otherwise the garbage collector would visit all of them in each fork, which takes a quarter of a
    second and copies memory that the fork shares.
    """
    gc.disable()  # imports make next to no garbage
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    if "torch" in sys.modules:
        _import_lazy_parts_of_torch()
    gc.freeze()
    gc.enable()


def _import_lazy_parts_of_torch() -> None:
    """Draw a random number on the meta device, as each model does: this imports torch's compiler, which takes a second."""
    import torch

    torch.empty(1, device="meta").normal_()


def _offer_to_the_kernel() -> None:
    """Ask the kernel to end this process first where memory runs out, not the one that keeps the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
