"""How jobs fit the machines of a cluster: what a job takes of a machine, and what differs there. Torch- and Ray-free."""

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
    """Return what each job takes of a machine with these resources, so that no two timed jobs share what they measure.

    On the CPU that is the whole machine; on an accelerator one GPU, and its share of the CPUs.
    """
    cpus, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
    if device == "cpu":
        return [{"num_cpus": cpus, "num_gpus": 0}] if cpus else []
    return [{"num_cpus": cpus // gpus, "num_gpus": 1} for _ in range(gpus)]


def find_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return the versions that differ between two environments, a line each.

    A checkout's commit counts where both have one: a version alone does not distinguish two checkouts.
    """
    own, other = here["versions"], there["versions"]
    pairs = [(name, own.get(name, ABSENT), other.get(name, ABSENT)) for name in sorted(own.keys() | other.keys())]
    if here["commit"] and there["commit"]:
        pairs.append((f"{OWN_DISTRIBUTION}'s commit", here["commit"], there["commit"]))
    return [f"{name}: {mine} here, {theirs} there" for name, mine, theirs in pairs if mine != theirs]


def split_job(job: Job, parts: int) -> list[Job]:
    """Return a static pass as several jobs, which run anywhere at the same time; any other job as it is."""
    parts = min(parts, len(job.trials)) if job.kind == "count" else 1
    return [replace(job, trials=job.trials[start::parts]) for start in range(parts)]


def fit_job(job: Job, environment: Mapping[str, Any]) -> Job:
    """Return a job as a machine with this environment does it, where only rounds that were measured in a like one count."""
    environment_id = digest(environment)
    device = job.device.partition(":")[0]  # a Ray worker sees only its own GPU
    # the job says whether its own environment's best rates are known; to measure them again replaces them
    rates = job.rates or (job.kind == "rounds" and job.environment != environment_id)
    fitted = replace(job, device=device, threads=environment["threads"], rates=rates)
    if job.environment in ("", environment_id):
        return fitted
    return replace(fitted, taken={}, first=0, spent=0.0, environment=environment_id)
