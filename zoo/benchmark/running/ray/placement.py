"""Fit jobs to the machines of a cluster, and compare their environments. This module imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoo.benchmark.trial import digest
from zoo.registry.discovery import OWN_DISTRIBUTION

if TYPE_CHECKING:
    from zoo.benchmark.measuring.jobs import Job

__all__ = ["divide_resources", "find_differences", "fit_job", "split_job"]

ABSENT = "not installed"


def divide_resources(resources: Mapping[str, float], device: str) -> list[dict[str, int]]:
    """Return the resources that Ray reserves for each of the jobs that a machine can do at the same time.

    A job on the CPU gets the whole machine. A job on an accelerator gets one GPU and an equal share of the CPUs. Therefore, no
    two timed jobs share a device.
    """
    cpus, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
    if device == "cpu":
        return [{"num_cpus": cpus, "num_gpus": 0}] if cpus else []
    return [{"num_cpus": cpus // gpus, "num_gpus": 1} for _ in range(gpus)]


def find_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return a line for each version that differs between two environments (of two machines).

    If both environments use a Git checkout of zoo, the commits are compared as well, since two checkouts with different code
    can have the same version.
    """
    own, other = here["versions"], there["versions"]
    pairs = [(name, own.get(name, ABSENT), other.get(name, ABSENT)) for name in sorted(own.keys() | other.keys())]
    if here["commit"] and there["commit"]:
        pairs.append((f"{OWN_DISTRIBUTION}'s commit", here["commit"], there["commit"]))
    return [f"{name}: {mine} here, {theirs} there" for name, mine, theirs in pairs if mine != theirs]


def split_job(job: Job, parts: int) -> list[Job]:
    """Divide a job into at most `parts` jobs that can run at the same time. Only a job of kind "count" can be divided."""
    parts = min(parts, len(job.trials)) if job.kind == "count" else 1
    return [replace(job, trials=job.trials[start::parts]) for start in range(parts)]


def fit_job(job: Job, environment: Mapping[str, Any]) -> Job:
    """Adapt a job to a machine with this environment.

    If the group's earlier rounds were measured in a different environment, the returned job starts again with the first round.
    """
    environment_id = digest(environment)
    device = job.device.partition(":")[0]  # a Ray worker sees only its own GPU
    # `job.rates` says whether the device's best rates are still unknown for the environment of the earlier rounds. In a
    # different environment, they are always measured. If an environment's rates are measured twice, the second measurement
    # replaces the first.
    rates = job.rates or (job.kind == "rounds" and job.environment != environment_id)
    fitted = replace(job, device=device, threads=environment["threads"], rates=rates)
    if job.environment in ("", environment_id):
        return fitted
    return replace(fitted, taken={}, first=0, spent=0.0, environment=environment_id)
