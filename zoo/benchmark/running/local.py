"""Jobs done in fresh processes of this machine, and watched: what crashes, hangs or takes all memory ends nothing else."""

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import psutil

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.measuring.memory import available_bytes
from zoo.benchmark.messages import Failed, FailureKind, Message, Working, message_from
from zoo.errors import ZooError

__all__ = ["Executor", "Limits", "LocalProcesses", "do_here"]

WATCH_SECONDS = 0.05
START_SECONDS = 120.0
"""A process may take so long to start: it imports torch, which a busy machine or a slow disk delays."""
SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process may take before it is ended.

    Attributes:
        step_seconds: between two messages, each of which says what is begun; the first may take `START_SECONDS`.
        memory_bytes: of resident memory; None for nine tenths of what is free when it starts.
    """

    step_seconds: float
    memory_bytes: int | None = None


class Executor(Protocol):
    """Does jobs, wherever."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Yield what each job tells as it goes, and ask for the next only when one is done, if it does one at a time.

        A job that ends early, because its process does, ends with a `Failed` for the trial that it ended for.
        """


def do_here(jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
    """Do jobs in this process, unwatched: for what no other process can make, such as a notebook's own decoder."""
    for job in jobs:
        for message in job.messages():
            yield job, message


class LocalProcesses:
    """Jobs one after the other, each in a fresh process: a fork of one that has imported everything, where that works."""

    def __init__(self, limits: Limits, preload: Sequence[str] = ()) -> None:
        self._limits = limits
        self._preload = list(preload)
        self._host: _Host | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def is_warm(self) -> bool:
        """Whether a process that has imported everything waits for the next job, to be forked for it."""
        return self._host is not None

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Yield what each job tells as it goes."""
        for job in jobs:
            for message in self._run(job):
                yield job, message

    def _run(self, job: Job) -> Iterator[Message]:
        host = self._host or _Host(self._preload)
        self._host = host
        host.send(job.as_dict())
        watch = _Watch(self._limits)
        try:
            for told in host.messages(watch):
                message = message_from(told)
                if isinstance(message, Working):
                    watch.working = message
                yield message
        except GeneratorExit:
            self._close()
            raise
        failure = None if host.is_done and watch.verdict is None else watch.failure(host.status, host.last_words())
        if host.ended:
            self._close()
        if failure:
            yield failure

    def _close(self) -> None:
        if self._host:
            self._host.close()
        self._host = None


class _Watch:
    """What one process is doing, and whether it may go on."""

    def __init__(self, limits: Limits) -> None:
        self._step_seconds = limits.step_seconds
        self._seconds = max(limits.step_seconds, START_SECONDS)
        self._memory = limits.memory_bytes or int(SHARE_OF_MEMORY * available_bytes())
        self._since = time.monotonic()
        self._kills = _kernel_kills()
        self.working = Working(trial=None, doing="starting")
        self.verdict: tuple[FailureKind, str] | None = None

    def heard(self) -> None:
        self._since = time.monotonic()
        self._seconds = self._step_seconds

    def judge(self, process: int | None) -> bool:
        """Return whether the process is to be ended now, and remember why."""
        if time.monotonic() - self._since > self._seconds:
            told = f"no end of '{self.working.doing}' after {self._seconds:g} s (step_limit)"
            self.verdict = ("hang", f"HangError: {told}.")
            return True
        if process is None:
            return False
        with suppress(psutil.Error):
            resident = psutil.Process(process).memory_info().rss
            if resident > self._memory:
                held, may = (f"{size / 2**30:.1f} GiB" for size in (resident, self._memory))
                told = f"its process held {held} during '{self.working.doing}', and may hold {may}"
                self.verdict = ("out of memory", f"OutOfMemoryError: {told} (memory_limit).")
                return True
        return False

    def failure(self, status: int | None, last_words: str) -> Failed:
        """Return what became of a process that ended before its job was done.

        Raises:
            ZooError: it was not about any trial.
        """
        kind, error = self.verdict or self._death(status, last_words)
        trial = self.working.trial
        if kind == "out of memory" and self.working.hog:
            trial = self.working.hog
        if trial is None:
            raise ZooError(f"The process that measures failed while {self.working.doing}: {error}")
        return Failed(trial=trial, kind=kind, error=error)

    def _death(self, status: int | None, last_words: str) -> tuple[FailureKind, str]:
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            if status == -signal.SIGKILL and _kernel_kills() > self._kills:
                return (
                    "out of memory",
                    f"OutOfMemoryError: the kernel ended its process during '{self.working.doing}' ({name}).",
                )
            told = f"its process died of {name} during '{self.working.doing}'"
        else:
            told = f"its process ended with status {status} during '{self.working.doing}'"
        return "crash", f"CrashError: {told}.{last_words}"


class _Host:
    """The process that imports once and forks for each job, with its two pipes."""

    def __init__(self, preload: list[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by close()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            # a library that asks on import whether there is a GPU does not open it, so that forks can
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zoo.benchmark.running.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._job_process: int | None = None
        self.status: int | None = None
        self.is_done = False
        self.ended = False
        self.send({"preload": preload})

    def send(self, line: dict[str, Any]) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def messages(self, watch: _Watch) -> Iterator[dict[str, Any]]:
        """Yield what the job tells until its process has ended, which happens at once where `watch` says so."""
        self._job_process, self.status, self.is_done = None, None, False
        self._errors_begin = self._errors.seek(0, os.SEEK_END)
        while True:
            try:
                line = self._lines.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                if watch.verdict is None and watch.judge(self._job_process):
                    self._kill()
                continue
            if not line:
                self.ended = True
                self.status = self._process.wait()
                return
            told = json.loads(line)
            watch.heard()
            if told["type"] == "Begin":
                self._job_process = told["process"]
            elif told["type"] == "Done":
                self.is_done = True
            elif told["type"] == "End":
                self.status = told["status"]
                return
            elif watch.verdict is None:
                yield told
                if watch.judge(self._job_process):
                    self._kill()

    def last_words(self) -> str:
        """Return the last lines that the job's process wrote as errors."""
        self._errors.seek(self._errors_begin)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return "".join(f"\n  {line}" for line in lines[-3:])

    def close(self) -> None:
        if self._job_process is not None:
            self._kill()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if self._job_process is not None:
                os.kill(self._job_process, signal.SIGKILL)
            else:
                self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout
        with suppress(ValueError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")


def _kernel_kills() -> int:
    """Return how many processes the kernel has ended for want of memory; 0 where it does not tell."""
    try:
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0
