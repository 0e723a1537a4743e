"""Jobs as tasks of Ray actors: which machine gets which, what they tell as it comes, and what is done when one is lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.messages import Failed, Message, Placed, Rated, Working, message_from
from zoo.benchmark.running.local import Limits
from zoo.benchmark.running.ray.actor import Seat
from zoo.benchmark.running.ray.machines import Roster, first_line, ray_options
from zoo.benchmark.running.ray.node import Node, device_of, parts_of, placed
from zoo.errors import ZooError

__all__ = ["RayTasks"]

MOST_LOSSES = 3
WAIT_SECONDS = 0.5

_Actor: TypeAlias = Any  # whose methods Ray makes at run time
_Stream: TypeAlias = Any  # ray.ObjectRefGenerator, which is generic in some versions only
_Identity: TypeAlias = tuple[str, int, str, int, int]


@dataclass(slots=True, kw_only=True)
class _Task:
    """A job on its way, and the last that was heard of it."""

    job: Job
    node: Node
    actor: _Actor
    identity: _Identity
    working: Working


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    node: str
    told: str


class RayTasks:
    """Jobs on the machines of a Ray cluster that this process is connected to, each alone with what it measures.

    The queue is here and not Ray's: a job goes to a machine that is known to be free, and to no other. There an actor does it,
    which has the whole machine or one GPU, and what it has imported, until there is no more for it to do. A job that is lost
    with its machine ends without a last message, and its caller asks for what is missing once more.
    """

    def __init__(self, limits: Limits, preload: Sequence[str], say: Callable[[str], None]) -> None:
        self._limits = limits
        self._preload = list(preload)
        self._say = say
        self._seat = ray.remote(max_restarts=0, max_task_retries=0)(Seat)
        self._nodes: Roster | None = None
        self._running: dict[_Stream, _Task] = {}
        self._idle: dict[str, list[_Actor]] = {}
        self._waiting: deque[Job] = deque()
        self._losses: dict[_Identity, list[_Loss]] = {}
        self._rated: set[tuple[str, str]] = set()
        self._files: dict[str, tuple[str, bytes]] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Yield what the jobs tell as it comes, in no order but each job's own.

        Raises:
            ZooError: no machine can measure, or one job was lost again and again.
        """
        coming = iter(jobs)
        first = next(coming, None)
        if first is None:
            return
        nodes = self._nodes = self._nodes or Roster(device_of(first), self._say)
        parts = (part for job in chain([first], coming) for part in parts_of(job, nodes.seats))
        try:
            while True:
                nodes.look()
                for node in nodes.free(task.node for task in self._running.values()):
                    job = self._next(node, parts)
                    if job is None:
                        self._dismiss(node)
                    else:
                        yield self._start(job, node)
                if not self._running and not self._waiting:
                    part = next(parts, None)
                    if part is None:
                        return
                    self._waiting.append(part)
                yield from self._hear()
        finally:
            self.close()

    def close(self) -> None:
        """Give up what still runs."""
        for actor in chain((task.actor for task in self._running.values()), *self._idle.values()):
            ray.kill(actor)
        for kept in (self._running, self._idle, self._waiting):
            kept.clear()

    def _next(self, node: Node, coming: Iterator[Job]) -> Job | None:
        """Return the first job that may be done on a machine; those before it go on waiting."""
        for job in self._waiting:
            if self._suits(job, node):
                self._waiting.remove(job)
                return job
        for job in coming:
            if self._suits(job, node):
                return job
            self._waiting.append(job)
        return None

    def _suits(self, job: Job, node: Node) -> bool:
        """Whether no other machine would do better: one like that of the rounds before, or one that has not lost the job."""
        assert self._nodes is not None
        lost_on = {loss.node for loss in self._losses.get(_identity(job), ())}
        others = [other for other in self._nodes if other.id not in lost_on]
        if job.place and job.place != node.place and any(other.place == job.place for other in others):
            return False
        return node.id not in lost_on or not others

    def _start(self, job: Job, node: Node) -> tuple[Job, Message]:
        assert self._nodes is not None
        if job.kind == "rounds" and not job.rates:
            self._rated.add((job.place or self._nodes.place, job.trials[0].dtype))
        there = placed(job, node, is_rated=(node.place, job.trials[0].dtype) in self._rated)
        files = [self._file(path) for path in job.plugins]
        idle: list[_Actor] = self._idle.get(node.id, [])
        actor: _Actor = idle.pop() if idle else self._seated(node)
        stream = actor.measure.options(num_returns="streaming").remote(there.as_dict(), files)
        working = Working(trial=None, doing="starting")
        self._running[stream] = _Task(job=there, node=node, actor=actor, identity=_identity(job), working=working)
        return there, Placed(environment=node.environment)

    def _seated(self, node: Node) -> _Actor:
        options = ray_options(node.id, node.share.cpus, node.share.gpus)
        return self._seat.options(**options).remote(self._limits, self._preload)

    def _dismiss(self, node: Node) -> None:
        """Let others have a machine for which there is nothing to do."""
        for actor in self._idle.pop(node.id, ()):
            ray.kill(actor)

    def _file(self, path: str) -> tuple[str, bytes]:
        """Return a plugin file's name and content, as it was when it was first wanted."""
        if path not in self._files:
            self._files[path] = (Path(path).name, Path(path).read_bytes())
        return self._files[path]

    def _hear(self) -> Iterator[tuple[Job, Message]]:
        """Yield one message of each task that has one; wait a little where none has."""
        if not self._running:
            time.sleep(WAIT_SECONDS)
            return
        ready: list[_Stream] = ray.wait(list(self._running), timeout=WAIT_SECONDS)[0]
        for stream in ready:
            task = self._running[stream]
            try:
                told: Any = ray.get(next(stream))
            except StopIteration:
                del self._running[stream]
                self._idle.setdefault(task.node.id, []).append(task.actor)
                continue
            except RayError as cause:
                del self._running[stream]
                ray.kill(task.actor)
                if failure := _out_of_memory(task, cause):
                    yield task.job, failure
                else:
                    self._lose(task, cause)
                continue
            self._running[stream] = self._running.pop(stream)  # the others first, next time
            message = message_from(told)
            if isinstance(message, Working):
                task.working = message
            elif isinstance(message, Rated):
                self._rated.add((task.node.place, message.dtype))
            yield task.job, message

    def _lose(self, task: _Task, cause: RayError) -> None:
        """Remember that a job was lost, and why.

        Raises:
            ZooError: the job itself says what is wrong, or it was lost too often.
        """
        original = getattr(cause, "cause", None) if isinstance(cause, RayTaskError) else None
        if isinstance(original, ZooError):
            raise ZooError(f"{task.node.name}: {original}") from cause
        assert self._nodes is not None
        told = f"{task.node.name}: {first_line(original or cause)}"
        self._nodes.rest(task.node)
        losses = self._losses.setdefault(task.identity, [])
        losses.append(_Loss(node=task.node.id, told=told))
        if len(losses) >= MOST_LOSSES:
            each = "".join(f"\n  {loss.told}" for loss in losses)
            raise ZooError(
                f"The same work ({_told(task)}) was lost {len(losses)} times in the Ray cluster, so that it is not tried "
                f"again:{each}\nSee Ray's logs on these machines, or measure without --ray. What was measured is kept: the "
                "same command goes on from there."
            )
        self._say(f"Lost while {_told(task)}, and done again elsewhere: {told}")


def _identity(job: Job) -> _Identity:
    """Return what two attempts at the same work share, if the first brought nothing."""
    return job.kind, job.group, job.trials[0].key, job.first, job.seed


def _told(task: _Task) -> str:
    return f"{task.working.doing}: {task.job.trials[0]}" + (" and others" if len(task.job.trials) > 1 else "")


def _out_of_memory(task: _Task, cause: RayError) -> Failed | None:
    """Return the failure of a trial for whose sake Ray ended a task, as it does where a machine runs out of memory."""
    working = task.working
    trial = working.hog or working.trial
    if not isinstance(cause, OutOfMemoryError) or trial is None:
        return None
    told = f"Ray ended its process on {task.node.name} for want of memory during '{working.doing}'"
    return Failed(trial=trial, kind="out of memory", error=f"OutOfMemoryError: {told}.")
