"""Run jobs in fresh processes on this machine, and kill processes that hang or use too much memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import psutil

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.measuring.memory import available_bytes
from zoo.benchmark.messages import Activity, Failure, FailureKind, Message, message_from
from zoo.common.child_process import ChildProcess, StepTimer, Task, describe_end
from zoo.errors import ZooError

__all__ = ["Executor", "Limits", "LocalProcesses", "do_here"]

SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The time and memory that a process may use before it is killed.

    Attributes:
        step_seconds: the longest time in seconds between two messages. Starting the process may take longer.
        memory_bytes: the largest resident memory in bytes; None for nine tenths of the memory that is free when the job starts.
    """

    step_seconds: float
    memory_bytes: int | None = None


class Executor(Protocol):
    """Runs jobs, on this machine or on others."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Run the jobs, and yield each message with its job as it arrives.

        An executor that runs one job at a time requests the next job only when the previous job is done. If the process of a
        job crashes, hangs or exceeds the memory limit, the last message of the job is the `Failure` of the trial at fault.
        """


def do_here(jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
    """Run jobs in this process, without limits. This is for models that no other process can build, such as a notebook's."""
    for job in jobs:
        for message in job.messages():
            yield job, message


class LocalProcesses:
    """Runs jobs one after the other, each in a fresh process: if possible, a fork of a process that has done all imports."""

    def __init__(self, limits: Limits, preload: Sequence[str] = ()) -> None:
        self._limits = limits
        self._preload = ["zoo.benchmark.measuring.jobs", *preload]
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def is_warm(self) -> bool:
        """Whether there is a process that has done all imports and can be forked for the next job."""
        return self._child is not None

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Run the jobs, and yield each message with its job as it arrives."""
        for job in jobs:
            for message in self._run(job):
                yield job, message

    def _run(self, job: Job) -> Iterator[Message]:
        child = self._child or ChildProcess(self._preload)
        self._child = child
        watch = _Watch(self._limits)
        task = Task(function="zoo.benchmark.measuring.jobs:do_job", arguments={"job": job.as_dict()}, device=job.device)
        try:
            for facts in child.run(task, watch):
                message = message_from(facts)
                if isinstance(message, Activity):
                    watch.activity = message
                yield message
        except GeneratorExit:
            self._close()
            raise
        failure = None if child.is_done else watch.failure(child.status, child.last_words())
        if child.has_ended:
            self._close()
        if failure:
            yield failure

    def _close(self) -> None:
        if self._child:
            self._child.close()
        self._child = None


class _Watch:
    """Watches the activity of one process, and decides whether the process exceeds its limits."""

    def __init__(self, limits: Limits) -> None:
        self._timer = StepTimer(limits.step_seconds)
        self._memory = limits.memory_bytes or int(SHARE_OF_MEMORY * available_bytes())
        self._kills = _kernel_kills()
        self.activity = Activity(trial=None, doing="starting")
        self.verdict: tuple[FailureKind, str] | None = None

    def heard(self) -> None:
        self._timer.heard()

    def judge(self, process: int | None) -> bool:
        """Return whether the process must be killed now, and store the reason in `verdict`."""
        if self._timer.is_over:
            error = f"HangError: '{self.activity.doing}' did not end after {self._timer.limit:g} s (step_limit)."
            self.verdict = ("hang", error)
            return True
        if process is None:
            return False
        with suppress(psutil.Error):
            resident = psutil.Process(process).memory_info().rss
            if resident > self._memory:
                held, limit = (f"{size / 2**30:.1f} GiB" for size in (resident, self._memory))
                error = f"its process used {held} during '{self.activity.doing}', but may use only {limit} (memory_limit)"
                self.verdict = ("out of memory", f"OutOfMemoryError: {error}.")
                return True
        return False

    def failure(self, status: int | None, last_words: str) -> Failure:
        """Return the failure of a process that ended before its job was done.

        Raises:
            ZooError: the process was not working on a trial, so no trial can be blamed.
        """
        kind, error = self.verdict or self._death(status, last_words)
        trial = self.activity.trial
        if kind == "out of memory" and self.activity.hog:
            trial = self.activity.hog
        if trial is None:
            raise ZooError(f"The measuring process failed while {self.activity.doing}: {error}")
        return Failure(trial=trial, kind=kind, error=error)

    def _death(self, status: int | None, last_words: str) -> tuple[FailureKind, str]:
        if status == -9 and _kernel_kills() > self._kills:
            return "out of memory", f"OutOfMemoryError: the kernel ended its process during '{self.activity.doing}' (SIGKILL)."
        return "crash", f"CrashError: its process {describe_end(status)} during '{self.activity.doing}'.{last_words}"


def _kernel_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory; 0 if it does not count them."""
    try:
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0
