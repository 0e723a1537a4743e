"""One machine of a Ray cluster as plain facts: what a job takes of it, and what it is there. Torch- and Ray-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.benchmark.trial import digest
from zoo.registry.discovery import OWN_DISTRIBUTION

if TYPE_CHECKING:
    from zoo.benchmark.measuring.jobs import Job

__all__ = ["Node", "Share", "device_of", "differences", "parts_of", "placed", "share_of"]

ABSENT = "not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one job takes of a machine, and how many such a machine has."""

    count: int
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of the cluster."""

    id: str
    name: str
    share: Share
    environment: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The identity of its environment."""
        return digest(self.environment)

    @property
    def threads(self) -> int:
        """Torch's CPU threads, as they are by default there."""
        return int(self.environment["threads"])


def share_of(resources: Mapping[str, float], device: str) -> Share:
    """Return what one job takes of a machine with these resources, so that no two timed jobs share what they measure.

    On the CPU that is the whole machine; on an accelerator one GPU, and its share of the CPUs.
    """
    cpus, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
    if device == "cpu":
        return Share(count=min(1, cpus), cpus=cpus, gpus=0)
    return Share(count=gpus, cpus=cpus // gpus if gpus else 0, gpus=1)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return what is installed otherwise in one environment than in another, a line each.

    A checkout's commit counts where both have one: a version alone does not tell two checkouts apart.
    """
    own, other = here["versions"], there["versions"]
    pairs = [(name, own.get(name, ABSENT), other.get(name, ABSENT)) for name in sorted(own.keys() | other.keys())]
    if here["commit"] and there["commit"]:
        pairs.append((f"{OWN_DISTRIBUTION}'s commit", here["commit"], there["commit"]))
    return [f"{name}: {mine} here, {theirs} there" for name, mine, theirs in pairs if mine != theirs]


def parts_of(job: Job, seats: int) -> list[Job]:
    """Return a static pass as one job a seat, which any machine may do; any other job as it is."""
    parts = min(seats, len(job.trials)) if job.kind == "count" else 1
    return [replace(job, trials=job.trials[start::parts]) for start in range(parts)] if parts > 1 else [job]


def placed(job: Job, node: Node, *, is_rated: bool) -> Job:
    """Return a job as it is to be done on a node, where only rounds that were measured in such a place count."""
    there = replace(job, device=device_of(job), threads=node.threads, rates=job.kind == "rounds" and not is_rated)
    if job.place and job.place != node.place:
        return replace(there, taken={}, first=0, spent=0.0, place=node.place)
    return there


def device_of(job: Job) -> str:
    """Return the device without its number: a task sees no other GPU than its own."""
    return job.device.partition(":")[0]
