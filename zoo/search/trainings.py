"""Read from the store how the candidates of a search were trained. Torch-free."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import subject_key
from zoo.pairing.pairing import Pairing

__all__ = ["Training", "mean_scores", "read_trainings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a candidate was trained in one stage.

    Attributes:
        key: the key of its trial.
        pairing: the pairing.
        name: the pairing as the table shows it.
        validation: a mapping from each seed with which training succeeded to the mIoU on the validation images.
        error: the first line of the error if the candidate could not be measured or trained with any seed; "" otherwise.
    """

    key: str
    pairing: Pairing
    name: str
    validation: Mapping[int, float]
    error: str


def read_trainings(store: Store, run: int) -> list[Training]:
    """Return how each candidate of a run was trained, in the order of the run."""
    qualities = store.qualities(run)
    trainings = []
    for stored in store.trials(run):
        pairing = stored.trial.subject
        if stored.trial.role == "control" or not isinstance(pairing, Pairing):
            continue
        results = qualities.get(subject_key(pairing), {})
        scores = {seed: each.result.validation for seed, each in results.items() if each.result}
        validation = {seed: score for seed, score in scores.items() if score is not None}
        errors = [error for error in (stored.error, *(each.error for each in results.values())) if error]
        error = errors[0].splitlines()[0] if errors and not validation else ""
        trainings.append(Training(key=stored.key, pairing=pairing, name=str(stored.trial), validation=validation, error=error))
    return trainings


def mean_scores(trainings: Sequence[Training]) -> dict[str, float]:
    """Return a mapping from the keys of the trained candidates to the mean mIoU over the seeds that all of them have.

    For candidates without a common seed, it is the mean over each one's own seeds.
    """
    trained = [each for each in trainings if each.validation]
    shared = set.intersection(*(set(each.validation) for each in trained)) if trained else set()
    return {each.key: statistics.fmean(each.validation[seed] for seed in shared or each.validation) for each in trained}
