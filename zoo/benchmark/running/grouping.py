"""Divide the trials of a block into groups that are measured together and fit into memory together. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.benchmark.trial import Trial

__all__ = ["pack_groups"]


def pack_groups(block: Sequence[Trial], live_bytes: Mapping[str, int | None], *, most: int, room: int) -> list[list[str]]:
    """Return groups of trial keys. Each group begins with the block's baseline and ends with its control.

    Args:
        block: the trials that are compared with one another.
        live_bytes: the peak size of each trial's tensors, by key; None if it is unknown. While other models are called, a
            model occupies less, since it has no activations then.
        most: the largest number of candidates in a group.
        room: the largest sum of the peaks of a group, in bytes. A candidate for which this is too little gets a group of its
            own, with the baseline and the control.
    """
    baseline = [trial.key for trial in block if trial.role == "baseline"]
    control = [trial.key for trial in block if trial.role == "control"]
    ends = sum(live_bytes.get(key) or 0 for key in baseline) * (1 + len(control))
    groups: list[list[str]] = []
    held = 0
    for trial in block:
        if trial.role != "candidate":
            continue
        needed = live_bytes.get(trial.key) or 0
        if not groups or len(groups[-1]) >= most or held + needed > room:
            groups.append([])
            held = ends
        groups[-1].append(trial.key)
        held += needed
    if not groups and baseline:
        groups = [[]]
    return [[*baseline, *group, *control] for group in groups]
