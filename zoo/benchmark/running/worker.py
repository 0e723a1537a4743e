"""The fresh process in which jobs are done: it reads one job a line, and writes one message a line.

Started by `local.py` as `python -m zoo.benchmark.running.worker`. It imports what the jobs need once, which takes seconds, and
forks for each job: the fork is a fresh process but for the imports, since nothing here has started a thread or opened a
device. Where the system cannot fork, or a fork cannot use the device, this process does the one job itself and ends.
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
    """Do jobs until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plugins print is no message
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked; it ends this one
    _offer_to_the_kernel()
    first = json.loads(sys.stdin.readline())
    _import(first["preload"])
    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        status = _do_in_fork(job, channel) if _can_fork(job["device"]) else None
        if status is None:
            _do(job, channel)
            return
        _say(channel, {"type": "End", "status": status})


def _can_fork(device: str) -> bool:
    return hasattr(os, "fork") and device.partition(":")[0] in FORKABLE


def _do_in_fork(job: dict[str, Any], channel: TextIO) -> int | None:
    """Do a job in a fork of this process and return its exit status; None, and nothing done, if it cannot use the device."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        can_use = _can_use(job["device"])
        os.write(writing, b"y" if can_use else b"n")
        os.close(writing)
        if can_use:
            _do(job, channel)
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 1)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return None if answer == b"n" else os.waitstatus_to_exitcode(status)


def _can_use(device: str) -> bool:
    """Whether this fork can use the device: CUDA refuses if the process that forked has opened it, say in an import."""
    if device == "cpu":
        return True
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # the latter from a PyTorch built without the device
        return False
    return True


def _do(job: dict[str, Any], channel: TextIO) -> None:
    """Do one job in this process; whoever asked for it being gone ends it."""
    from zoo.benchmark.measuring.jobs import Job
    from zoo.benchmark.messages import message_to

    threading.Thread(target=_end_with_input, daemon=True).start()
    _say(channel, {"type": "Begin", "process": os.getpid()})
    try:
        for message in Job.from_dict(job).messages():
            _say(channel, message_to(message))
        _say(channel, {"type": "Done"})
    except BaseException:  # noqa: BLE001 - what it is stands on stderr, for whoever asked
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _end_with_input() -> None:
    """End this process when nobody can ask anything any more: what asked is gone, or wants no more."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _say(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def _import(names: list[str]) -> None:
    """Import what the jobs will need, and keep it for good; what fails here will tell so there.

    The garbage collector would visit everything imported in each fork that runs it. That takes a quarter of a second, and
    writes to pages that the fork shares, which are then its own memory.
    """
    gc.disable()  # imports make next to no garbage
    for name in ("zoo.benchmark.measuring.jobs", *names):
        with suppress(Exception):
            importlib.import_module(name)
    _import_lazy_parts_of_torch()
    gc.freeze()
    gc.enable()


def _import_lazy_parts_of_torch() -> None:
    """Draw a random number on the meta device, where each model is built once: that imports torch's compiler, in a second."""
    import torch

    torch.empty(1, device="meta").normal_()


def _offer_to_the_kernel() -> None:
    """Where memory runs out, let this process go first, and not the one that keeps the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
