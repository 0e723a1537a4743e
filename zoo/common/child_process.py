"""Run tasks in child processes and watch them, so that a crash, a hang or an out-of-memory error affects only one task."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

__all__ = ["ChildProcess", "StepTimer", "Task", "Watch", "describe_end"]

WATCH_SECONDS = 0.05
START_SECONDS = 120.0
"""How many seconds a process may take to start. It may take long, since importing torch is slow on a busy machine or a slow
disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A function call to run in a child process.

    Attributes:
        function: the path `package.module:name` of a generator function. The values that it yields are sent as JSON.
        arguments: the keyword arguments of the function, also sent as JSON.
        device: the torch device that the call uses. A forked process cannot use every device.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"


class Watch(Protocol):
    """Decides whether a task may continue."""

    def heard(self) -> None:
        """Record that the task's process has sent a message, such as a value that the task yields."""

    def judge(self, process: int | None) -> bool:
        """Return whether the task's process must be killed now. `process` is the id of that process; None until it starts."""


class StepTimer:
    """A time limit for each step of a task, in seconds.

    A step ends when the task's process sends a message (`heard`). The first step is the start of the process; its limit is at
    least `START_SECONDS`. Each further step ends with a value that the task yields, or with the end of the task.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.limit = max(seconds, START_SECONDS)
        self._since = time.monotonic()

    def heard(self) -> None:
        """End the current step, and begin to time the next one."""
        self._since, self.limit = time.monotonic(), self._seconds

    @property
    def is_over(self) -> bool:
        """Whether the current step has taken longer than `limit` seconds."""
        return time.monotonic() - self._since > self.limit


class ChildProcess:
    """A process that imports modules once, and then runs each task in a fork of itself.

    A fork has the imported modules but is otherwise like a fresh process. If forks are unavailable or unsafe, or if a fork
    cannot use the device, the process runs a single task itself and then ends.

    Attributes:
        is_done: whether the last task ran to its end.
        status: the exit status of the process that ran the last task.
        has_ended: whether this process has ended. If so, the next task needs a new `ChildProcess`.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by close()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),  # for the preloaded modules
            # With this, a library that looks for a GPU on import does not initialize CUDA, so that forks can still use it.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zoo.common.child_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._task_process: int | None = None
        self.status: int | None = None
        self.is_done = False
        self.has_ended = False
        self._send({"preload": list(preload)})

    def run(self, task: Task, watch: Watch) -> Iterator[Any]:
        """Run a task, and yield its values until the task's process has ended.

        If `watch.judge` returns True, the task's process is killed.
        """
        self._task_process, self.status, self.is_done = None, None, False
        self._errors_begin = self._errors.seek(0, os.SEEK_END)
        facts = {"function": task.function, "arguments": dict(task.arguments), "device": task.device}
        self._send(facts | {"path": [path or str(Path.cwd()) for path in sys.path]})
        is_killed = False
        while True:
            try:
                line = self._lines.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                if not is_killed and watch.judge(self._task_process):
                    is_killed = True
                    self._kill()
                continue
            if not line:
                self.has_ended = True
                self.status = self._process.wait()
                return
            kind, *values = json.loads(line)
            watch.heard()
            if kind == "begin":
                (self._task_process,) = values
            elif kind == "done":
                self.is_done = not is_killed
            elif kind == "end":
                (self.status,) = values
                return
            elif not is_killed:
                yield values[0]
                if watch.judge(self._task_process):
                    is_killed = True
                    self._kill()

    def last_words(self) -> str:
        """Return the last three lines that the task's process wrote to standard error. Each begins with a line break."""
        self._errors.seek(self._errors_begin)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return "".join(f"\n  {line}" for line in lines[-3:])

    def close(self) -> None:
        """Kill the process and the task that it runs."""
        if self._task_process is not None:
            self._kill()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _send(self, line: dict[str, Any]) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def _kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            if self._task_process is not None:
                psutil.Process(self._task_process).kill()
            else:
                self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout
        with suppress(ValueError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")


def describe_end(status: int | None) -> str:
    """Return text that says how a process ended: the signal that killed it, or its exit status."""
    if status is not None and status < 0:
        return f"died of {signal.Signals(-status).name}"
    return f"ended with status {status}"
