"""Train each model of a run with each seed, and score the simple baselines, which are not neural networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.benchmark.messages import Failure, TrainingResult
from zoo.benchmark.quality import QualityEntry
from zoo.benchmark.running.identity import data_digest
from zoo.benchmark.running.session import Session
from zoo.benchmark.trial import subject_key

if TYPE_CHECKING:
    from zoo.data.segmentation_data import SegmentationData

__all__ = ["TRAINING_MODULES", "TrainingLimits", "load_data", "measure_floors", "measure_quality"]

TRAINING_MODULES = ("zoo.benchmark.measuring.training", "zoo.training.loop.lightning_run")
"""The modules that training imports in addition to those of the models. Importing them takes seconds."""


def load_data(quality: QualityEntry) -> SegmentationData:
    """Open the training data of a run, and return them.

    A run opens its data before it measures anything, so that errors are reported early.
    """
    from zoo.data.data_config import locate_data
    from zoo.training.fit import check_installed

    check_installed(locate_data(quality.data.source, Path()))
    from zoo.benchmark.measuring.training import open_quality_data

    return open_quality_data(quality)


def measure_floors(session: Session, data: SegmentationData) -> None:
    """Score the simple baselines, which are not neural networks, and store the scores. Every model should score higher."""
    from zoo.benchmark.measuring.training import floor_scores
    from zoo.data.baselines import BASELINES

    known = session.store.qualities(session.run)
    for name in BASELINES:
        if name not in known:
            session.watcher.advance(f"scoring the {name}", 0)
            session.store.add_quality(session.run, name, 0, {"scores": floor_scores(data, name).as_dict()})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLimits:
    """Where the trainings of a run keep their checkpoints, and when no further training begins.

    Attributes:
        folder: the folder in which each model with each seed has a folder with its checkpoints, from which its training goes
            on.
        deadline: the time (`time.monotonic`) after which no further training begins.
        minimum: the number of trainings that are done even after the deadline.
    """

    folder: Path
    deadline: float
    minimum: int


def measure_quality(session: Session, data: SegmentationData, limits: TrainingLimits | None = None) -> None:
    """Train all models with the first seed, then all models with the next seed, and so on.

    In this order, all models have about equally many seeds if the run is interrupted, so they can still be compared.

    Args:
        session: the run.
        data: the images and masks.
        limits: where checkpoints are kept, and when no further training begins. Without it, every model is trained from the
            beginning with every seed.
    """
    assert session.config.quality is not None
    trials: dict[str, str] = {}  # the trial that represents all trials of a model: the first that has not failed
    for key in session.live():
        if not session.is_control(key):
            trials.setdefault(subject_key(session.trials[key].subject), key)
    first = session.config.quality.first_seed
    wanted = [(subject, seed) for seed in range(first, first + session.config.quality.seeds) for subject in trials]
    missing = _find_untrained(session, wanted)
    session.watcher.begin(len(wanted))
    session.watcher.advance("already trained", len(wanted) - len(missing))
    while missing:
        jobs = (
            replace(
                session.make_job("train", [trials[subject]]),
                seed=seed,
                quality=session.config.quality,
                data=data_digest(data),
                folder=str(limits.folder / f"{subject}-{seed}") if limits else "",
            )
            for subject, seed in missing
            if (subject, seed) in _select_due(wanted, limits)
        )
        for job, message in session.run_jobs(jobs):
            subject, name = subject_key(job.trials[0].subject), str(job.trials[0])
            if isinstance(message, TrainingResult):
                facts = asdict(message)
                result = {fact: facts[fact] for fact in ("steps", "seconds", "classes", "scores", "validation")}
                session.store.add_quality(session.run, subject, message.seed, result)
                session.watcher.advance(f"trained {name} with seed {message.seed}: mIoU {message.scores['miou']:.3f}")
            elif isinstance(message, Failure):
                session.store.add_quality(session.run, subject, job.seed, None, failure=message.kind, error=message.error)
                session.watcher.advance(f"training {name} with seed {job.seed} failed")
                session.watcher.say(f"FAILED training {name} with seed {job.seed}: {message.error.splitlines()[0]}")
        missing = _find_untrained(session, _select_due(wanted, limits))


def _find_untrained(session: Session, wanted: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    known = session.store.qualities(session.run)
    return [(subject, seed) for subject, seed in wanted if seed not in known.get(subject, {})]


def _select_due(wanted: Sequence[tuple[str, int]], limits: TrainingLimits | None) -> Sequence[tuple[str, int]]:
    """Return the trainings that may still begin: all before the deadline, and then only the required ones."""
    return wanted if limits is None or time.monotonic() < limits.deadline else wanted[: limits.minimum]
