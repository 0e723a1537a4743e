"""Train a trial's model once and test it, with messages meanwhile; and score the floors, which need no network."""

from __future__ import annotations

import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from zoo.benchmark.measuring.failures import failure_of
from zoo.benchmark.measuring.steps import build_subject
from zoo.benchmark.messages import Activity, Message, TrainingResult
from zoo.benchmark.quality import QualityEntry
from zoo.benchmark.trial import Trial
from zoo.data.baselines import BASELINES
from zoo.data.fingerprint import fingerprint_of_samples
from zoo.data.segmentation_data import SegmentationData
from zoo.data.sources import open_data
from zoo.errors import DataError
from zoo.pairing.pairing import Pairing
from zoo.training.fit import crop_size, fit
from zoo.training.result import TrainResult
from zoo.training.sampling import seed_of
from zoo.training.scores import Scores, score_predictor

__all__ = ["floor_scores", "open_quality_data", "train_and_test"]

REPORT_SECONDS = 0.5
WARM_STEPS, TIMED_STEPS = 3, 8


def open_quality_data(plan: QualityEntry) -> SegmentationData:
    """Return the data that a run trains on, with their fingerprint.

    Raises:
        DataError: the data cannot be used, or their images differ in size and the plan has no `size`.
    """
    data = open_data(plan.data.source, **plan.data.options())
    crop_size(data, plan)
    return data if data.fingerprint else replace(data, fingerprint=fingerprint_of_samples(data.parts()))


def floor_scores(data: SegmentationData, name: str) -> Scores:
    """Return the scores of one of `BASELINES` on the test part."""
    return score_predictor(data, BASELINES[name](data))


def train_and_test(trial: Trial, plan: QualityEntry, *, digest: str, device: torch.device, seed: int) -> Iterator[Message]:
    """Train and test in a thread of its own, and yield an `Activity` every half second meanwhile.

    Args:
        trial: of the model.
        plan: the data and the settings.
        digest: of the run's data; other data are refused.
        device: to train on.
        seed: of the weights and the order of the data.
    """
    messages: queue.Queue[Message | None] = queue.Queue()
    is_abandoned = threading.Event()
    last = 0.0

    def report(doing: str) -> None:
        nonlocal last
        if is_abandoned.is_set():
            raise _AbandonedError
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            messages.put(Activity(trial=trial.key, doing=f"training with seed {seed}, {doing}"))

    def work() -> None:
        try:
            messages.put(_train(trial, plan, digest, device, seed, report))
        except BaseException as cause:  # noqa: BLE001 - whatever a plugin's model raises becomes its row
            messages.put(failure_of(trial, cause))
        finally:
            messages.put(None)

    yield Activity(trial=trial.key, doing=f"training with seed {seed}, building")
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while (message := messages.get()) is not None:
            yield message
    finally:
        is_abandoned.set()
        worker.join()


class _AbandonedError(Exception):
    """Nobody reads the messages any more."""


class _EnoughError(Exception):
    """Enough steps were timed."""


def _train(
    trial: Trial, plan: QualityEntry, digest: str, device: torch.device, seed: int, report: Callable[[str], None]
) -> TrainingResult:
    data = open_quality_data(plan)
    if data.fingerprint and data.fingerprint.digest != digest:
        raise DataError(f"{data.name} has changed since the run began, or differs on this machine. Start another run.")
    size = crop_size(data, plan)
    began = time.perf_counter()

    def run(steps: int, report: Callable[[str], None]) -> TrainResult:
        settings = plan.settings(steps=steps, seed=seed, device=str(device))
        with tempfile.TemporaryDirectory(prefix="zoo-quality-") as folder:
            return fit(_subject(trial, size, seed), data, settings, Path(folder, "run"), tell=report)

    steps = plan.budget if isinstance(plan.budget, int) else _count_steps(plan.seconds or 0.0, run, report)
    result = run(steps, report)
    return TrainingResult(
        trial=trial.key,
        seed=seed,
        steps=result.steps,
        seconds=time.perf_counter() - began,
        classes=data.classes,
        scores=result.test.as_dict(),
    )


def _subject(trial: Trial, size: tuple[int, int], seed: int) -> Pairing | nn.Module:
    """Return the pairing or model to train; an encoder made for one image size is made for the data's."""
    if isinstance(trial.subject, Pairing):
        return replace(trial.subject, image_size=trial.subject.image_size or size)
    torch.manual_seed(seed_of("weights", seed) % 2**63)
    return build_subject(trial)


def _count_steps(seconds: float, run: Callable[[int, Callable[[str], None]], object], report: Callable[[str], None]) -> int:
    """Return how many steps fill a time: by the median time of a few, in a run that stops after them."""
    starts: list[float] = []

    def listen(doing: str) -> None:
        report(doing)
        starts.append(time.perf_counter())
        if len(starts) > WARM_STEPS + TIMED_STEPS:
            raise _EnoughError

    with suppress(_EnoughError):
        run(WARM_STEPS + TIMED_STEPS + 1, listen)
    taken = [after - before for before, after in zip(starts[WARM_STEPS:], starts[WARM_STEPS + 1 :], strict=False)]
    return max(1, round(seconds / statistics.median(taken)))
