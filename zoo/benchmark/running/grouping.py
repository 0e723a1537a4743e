"""Group the trials of a block that fit into memory beside one another, to be measured together. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.benchmark.trial import Trial

__all__ = ["pack_groups"]


def pack_groups(block: Sequence[Trial], live_bytes: Mapping[str, int | None], *, most: int, room: int) -> list[list[str]]:
    """Return groups of keys, each with the block's baseline first and its control last.

    Args:
        block: trials that are compared with one another.
        live_bytes: the peak of each trial's tensors, where it is known. A model holds less between its turns, without
            activations.
        most: how many candidates a group may have.
        room: the most bytes of a group's peaks in total; a trial that exceeds it is alone with the baseline.
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
