"""Collect the quality of a run's models from the stored training results. Torch-free."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

from zoo.benchmark.quality import FLOORS, Floor, Quality
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Subject, subject_key
from zoo.common.statistics import Difference, adjust_p_values

__all__ = ["Qualities", "data_content", "data_names"]


def data_content(run: StoredRun) -> str:
    """Return a digest of the data that a run trained on. If the store has no digest, return the name and options of the data.

    The result is "" for a run without training.
    """
    config = run.config.get("quality")
    return str(run.config.get("data_digest") or json.dumps(config["data"], sort_keys=True)) if config else ""


def data_names(runs: Sequence[StoredRun]) -> dict[int, str]:
    """Return the name of the data for each run with training. Data with different content have different names.

    The name of a folder is the last part of its path. If this part also names data with other content, the name is the whole
    path. If the runs found different content at the same path, the name is the path and a digest.
    """
    paths = {run.id: PurePath(run.config["quality"]["data"]["source"]) for run in runs if data_content(run)}
    contents = {run.id: data_content(run) for run in runs if run.id in paths}
    by_name, by_path = defaultdict(set), defaultdict(set)
    for run, path in paths.items():
        by_name[path.name].add(contents[run])
        by_path[path].add(contents[run])
    names = {}
    for run, path in paths.items():
        if len(by_name[path.name]) == 1:
            names[run] = path.name
        elif len(by_path[path]) == 1:
            names[run] = str(path)
        else:
            names[run] = f"{path} ({contents[run][:12]})"
    return names


class Qualities:
    """The scores of one run's models after training, and of the trivial baselines, which are not neural networks.

    Args:
        store: the store that contains the run.
        run: the run.
        data: the name of the data that the run trained on.
    """

    def __init__(self, store: Store, run: StoredRun, data: str) -> None:
        self._data = data
        self._stored = store.qualities(run.id)
        self._config = run.config.get("quality") or {}
        trainings = ((name, self._stored.get(name, {}).get(0)) for name in FLOORS)
        self.floors = tuple(
            Floor(run=run.id, name=name, miou=stored.result.scores.miou)
            for name, stored in trainings
            if stored and stored.result
        )

    def of(self, subject: Subject) -> Quality | None:
        """Return the scores of a model; None if it was not trained."""
        stored = self._stored.get(subject_key(subject))
        if not stored:
            return None
        done = {seed: each.result for seed, each in stored.items() if each.result}
        results = list(done.values())
        return Quality(
            data=self._data,
            classes=results[0].classes if results else (),
            seeds=tuple(done),
            miou=tuple(result.scores.miou for result in results),
            iou=tuple(result.scores.iou for result in results),
            steps=tuple(result.steps for result in results),
            seconds=tuple(result.seconds for result in results),
            failures={seed: each.error for seed, each in stored.items() if each.error},
            wanted=self._config["seeds"],
        )

    def differences(self, pairs: Iterable[tuple[Subject, Subject]]) -> dict[tuple[str, str], Difference]:
        """Return the differences in mIoU between models and their baselines, with the p-values corrected for their number.

        Args:
            pairs: a model and its baseline, once or several times.

        Returns:
            A mapping from the `subject_key` of a model and its baseline to the difference. Pairs without a common seed are left
            out.
        """
        found: dict[tuple[str, str], Difference] = {}
        for subject, baseline in dict.fromkeys(pairs):
            own, base = self.of(subject), self.of(baseline)
            if own and base and (difference := own.difference(base)):
                found[subject_key(subject), subject_key(baseline)] = difference
        compared = [keys for keys in found if keys[0] != keys[1]]
        for keys, p_value in zip(compared, adjust_p_values([found[keys].p_value for keys in compared]), strict=True):
            found[keys] = replace(found[keys], p_value=p_value)
        return found

    def flags(self, quality: Quality) -> Iterator[str]:
        """Yield warnings about a model: seeds for which it was not trained, and trivial baselines that it does not exceed."""
        for seed, error in quality.failures.items():
            yield f"training with seed {seed} failed: {error.splitlines()[0]}"
        if missing := quality.wanted - len(quality.seeds) - len(quality.failures):
            yield f"not trained yet with {missing} of {quality.wanted} seeds"
        below = [floor for floor in self.floors if quality.mean is not None and quality.mean <= floor.miou]
        if below:
            yield f"not above the {' and the '.join(f'{floor.name} ({floor.miou:.3f})' for floor in below)}"
