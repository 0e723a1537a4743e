"""Assign jobs to the machines of a Ray cluster, receive their messages, and handle machines that are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.messages import Activity, Failure, JobEnvironment, Message
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.local import Limits
from zoo.benchmark.running.ray.placement import divide_resources, fit_job, split_job
from zoo.benchmark.running.ray.worker import Worker, describe_machine
from zoo.benchmark.trial import digest
from zoo.errors import ZooError

__all__ = ["RayExecutor"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """A whole machine, or one GPU of a machine, which does one job at a time. Ray reserves it for an actor, a `Worker`."""

    node: str
    name: str
    options: Mapping[str, Any]
    worker: Any = None
    job: Job | None = None
    doing: str = ""
    trial: str | None = None


class RayExecutor:
    """Does jobs on the machines of the Ray cluster that this process is connected to.

    A job on the CPU has a whole machine for itself, and a job on a GPU has that GPU for itself. This class, not Ray, assigns
    jobs to machines, because rounds can continue only on a machine with the environment in which they began.

    If a machine is lost, the messages of its job stop, and the caller requests the missing results again.
    """

    def __init__(self, limits: Limits, preload: Sequence[str], say: Callable[[str], None]) -> None:
        self._limits = limits
        self._preload = list(preload)
        self._say = say
        self._plugin_files: list[tuple[str, bytes]] = []
        # The keys are the ids of machines. The value is {} if the machine is not used.
        self._environments: dict[str, dict[str, Any]] = {}
        self._idle: list[_Slot] = []
        self._running: dict[Any, _Slot] = {}  # the keys are Ray's streams of messages, one for each running job
        self._waiting: list[Job] = []

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message]]:
        """Run the jobs, and yield each message with its job as it arrives. The messages of one job are in order.

        Raises:
            ZooError: no machine can be used.
        """
        coming = iter(jobs)
        first = next(coming, None)
        if first is None:
            return
        # read once, so that a file that changes during the run does not change what is measured
        self._plugin_files = self._plugin_files or [(Path(path).name, Path(path).read_bytes()) for path in first.plugins]
        self._idle = self._find_slots(first.device.partition(":")[0])
        num_slots = len(self._idle)
        parts = (part for job in chain([first], coming) for part in split_job(job, num_slots))
        try:
            while True:
                for slot in list(self._idle):
                    if self._environments[slot.node] and (job := self._next_job(slot, parts)):
                        yield self._start(job, slot)
                if not self._running:
                    return  # all jobs are done, or their machines are lost
                yield from self._receive()
        finally:
            self.close()

    def close(self) -> None:
        """Stop the running jobs, and release the machines."""
        for slot in (*self._idle, *self._running.values()):
            if slot.worker:
                ray.kill(slot.worker)
        self._idle, self._running, self._waiting = [], {}, []

    def _find_slots(self, device: str) -> list[_Slot]:
        """Return the slots of all usable machines. New machines are first asked for their environment (device and versions).

        Raises:
            ZooError: no machine can be used.
        """
        list_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes  # `ray.nodes` has no annotations
        nodes = [facts for facts in list_nodes() if facts["Alive"]]
        slots = [slot for facts in nodes for slot in _make_slots(facts, device)]
        new = {slot.node: slot for slot in slots if slot.node not in self._environments}
        here = describe_environment(torch.device(device)).as_dict()
        # A process that has opened a device occupies some of the device's memory until the process ends. So each process that
        # describes a machine ends after one call.
        describe = ray.remote(max_calls=1, max_retries=0)(describe_machine)
        descriptions = {node: describe.options(**slot.options).remote(device, here) for node, slot in new.items()}
        for node, slot in new.items():
            count = sum(other.node == node for other in slots)
            self._say(f"Measuring on {slot.name}, {count} at a time, as soon as the machine is free.")
            try:
                self._environments[node] = ray.get(descriptions[node])
            except RayError as cause:
                self._environments[node] = {}
                self._say(f"Nothing is measured on {slot.name}: {_describe_error(cause)}")
        usable = [slot for slot in slots if self._environments[slot.node]]
        if not usable:
            counts = (tuple(facts["Resources"].get(name, 0) for name in ("CPU", "GPU")) for facts in nodes)
            found = ", ".join(f"one with {cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in counts)
            refused = " The lines above say why a machine that has the device is not used." if slots else ""
            raise ZooError(
                f"No machine of the Ray cluster can be used for measurements on {device!r}; found: {found}.{refused} Add a "
                "machine with `ray start --address=HOST:PORT` (and --num-gpus=N for GPUs). Then run the same command again, "
                "which resumes the run."
            )
        return usable

    def _next_job(self, slot: _Slot, coming: Iterator[Job]) -> Job | None:
        """Return the first job that may run on a slot; None if there is none.

        A job with earlier rounds waits for a machine with the environment of these rounds, as long as there is such a machine.
        """
        slots = (slot, *self._idle, *self._running.values())
        here, *elsewhere = (digest(self._environments[other.node]) for other in slots)
        while not (ready := [job for job in self._waiting if job.environment == here or job.environment not in elsewhere]):
            if not (job := next(coming, None)):
                return None
            self._waiting.append(job)
        self._waiting.remove(ready[0])
        return ready[0]

    def _start(self, job: Job, slot: _Slot) -> tuple[Job, Message]:
        environment = self._environments[slot.node]
        if not slot.worker:
            slot.worker = ray.remote(Worker).options(**slot.options).remote(self._limits, self._preload)
        slot.job, slot.doing, slot.trial = fit_job(job, environment), "starting", None
        stream = slot.worker.measure.options(num_returns="streaming").remote(slot.job, self._plugin_files)
        self._idle.remove(slot)
        self._running[stream] = slot
        return slot.job, JobEnvironment(environment=environment)

    def _receive(self) -> Iterator[tuple[Job, Message]]:
        """Wait for the next message of any job, and yield it.

        If the job has ended or its machine was lost instead, yield nothing. If Ray ended the job's process because the machine
        ran out of memory, yield the `Failure` of the trial at fault.

        Raises:
            ZooError: the job raised a ZooError.
        """
        ready: list[Any] = ray.wait(list(self._running))[0]
        (stream,) = ready
        slot = self._running.pop(stream)
        assert slot.job
        try:
            message: Any = ray.get(next(stream))
        except StopIteration:
            self._idle.append(slot)
        except RayError as cause:
            ray.kill(slot.worker)
            slot.worker = None
            if isinstance(error := getattr(cause, "cause", None), ZooError):
                raise ZooError(f"{slot.name}: {error}") from cause
            if isinstance(cause, OutOfMemoryError) and slot.trial:
                self._idle.append(slot)
                error = f"OutOfMemoryError: Ray ended its process during '{slot.doing}', since {slot.name} ran out of memory."
                yield slot.job, Failure(trial=slot.trial, kind="out of memory", error=error)
                return
            self._environments[slot.node] = {}
            lost = f"Lost during '{slot.doing}': the job that measured {slot.job.trials[0]}. It is measured elsewhere."
            self._say(f"{lost} {slot.name} is not used again: {_describe_error(cause)}")
        else:
            self._running[stream] = slot  # last, so that messages of the other machines are received first
            if isinstance(message, Activity):
                slot.doing, slot.trial = message.doing, message.hog or message.trial
            yield slot.job, message


def _make_slots(facts: Mapping[str, Any], device: str) -> list[_Slot]:
    node = facts["NodeID"]
    name = f"{facts['NodeManagerHostname']} ({facts['NodeManagerAddress']}, node {node[:8]})"
    affinity = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    shares = divide_resources(facts["Resources"], device)
    return [_Slot(node=node, name=name, options={**share, "scheduling_strategy": affinity}) for share in shares]


def _describe_error(cause: RayError) -> str:
    """Return the text of the error that a task raised. An error of Ray itself is long, so return only its first line."""
    return str(cause.cause) if isinstance(cause, RayTaskError) else str(cause).partition("\n")[0]
