"""Divide a block, the trials that are compared with one another, into groups whose models fit into memory together.

The trials of a group are measured together. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.benchmark.trial import Trial

__all__ = ["pack_groups"]


def pack_groups(block: Sequence[Trial], live_bytes: Mapping[str, int | None], *, most: int, room: int) -> list[list[str]]:
    """Return groups of trial keys.

    Each group begins with the baseline and ends with the control, a copy of the baseline, if the block has them.

    Args:
        block: the trials that are compared with one another.
        live_bytes: a mapping from a trial's key to the peak size of all its tensors, in bytes; None if the size is unknown,
            which counts as 0. A group needs less than the sum of these peaks, since only the model that is being called has
            activations.
        most: the largest number of candidates in a group.
        room: the limit for the sum of the peaks of a group, in bytes. If a single candidate, together with the baseline and the
            control, already exceeds this limit, the three still form a group.
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
