"""Train and test the model of a trial, and score the simple baselines, which are not neural networks."""

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
from zoo.training.loop.sampling import seed_of
from zoo.training.result import TrainResult
from zoo.training.scores import Scores, score_predictor

__all__ = ["floor_scores", "open_quality_data", "train_and_test"]

REPORT_SECONDS = 0.5
WARM_STEPS, TIMED_STEPS = 3, 8


def open_quality_data(plan: QualityEntry) -> SegmentationData:
    """Return the data that a run trains on, with their fingerprint.

    Raises:
        DataError: the data cannot be used, or their images differ in size and the plan sets no `size`.
    """
    data = open_data(plan.data.source, **plan.data.options())
    crop_size(data, plan)
    return data if data.fingerprint else replace(data, fingerprint=fingerprint_of_samples(data.parts()))


def floor_scores(data: SegmentationData, name: str) -> Scores:
    """Return the scores of a simple baseline, such as "color look-up", on the test data. `name` is a key of `BASELINES`."""
    return score_predictor(data, BASELINES[name](data))


def train_and_test(
    trial: Trial, plan: QualityEntry, *, digest: str, device: torch.device, seed: int, folder: Path | None = None
) -> Iterator[Message]:
    """Train and test a trial's model in a separate thread, and yield the messages.

    While the thread runs, an `Activity` is yielded about every half second. The last message is a `TrainingResult` or, if
    an exception was raised, a `Failure`.

    Args:
        trial: the trial whose model is trained.
        plan: the data and the settings.
        digest: the digest of the run's data. Data with a different digest are refused.
        device: the device to train on.
        seed: the seed of the weights and of the order of the data.
        folder: the folder of the checkpoints, from which training goes on; None to train from the beginning.
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
            messages.put(_train(trial, plan, digest, device, seed, folder, report))
        except BaseException as cause:  # noqa: BLE001 - any exception of a plugin's model is shown in its row
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
    """Raised in the training thread when nobody reads its messages anymore."""


class _EnoughError(Exception):
    """Raised to stop training when enough steps have been timed."""


def _train(
    trial: Trial,
    plan: QualityEntry,
    digest: str,
    device: torch.device,
    seed: int,
    folder: Path | None,
    report: Callable[[str], None],
) -> TrainingResult:
    data = open_quality_data(plan)
    if data.fingerprint and data.fingerprint.digest != digest:
        raise DataError(
            f"{data.name} has changed since the run began, or differs on this machine. Restore the data, or start a new run."
        )
    size = crop_size(data, plan)
    began = time.perf_counter()

    def run(steps: int, report: Callable[[str], None]) -> TrainResult:
        settings = plan.settings(steps=steps, seed=seed, device=str(device))
        with tempfile.TemporaryDirectory(prefix="zoo-quality-") as temporary:
            output = folder or Path(temporary, "run")
            return fit(_subject(trial, size, seed), data, settings, output, tell=report, stop_after=plan.stop_after)

    steps = plan.budget if isinstance(plan.budget, int) else _count_steps(plan.seconds or 0.0, run, report)
    result = run(steps, report)
    return TrainingResult(
        trial=trial.key,
        seed=seed,
        steps=result.steps,
        seconds=time.perf_counter() - began,
        classes=data.classes,
        scores=result.test.as_dict(),
        validation=result.validation,
    )


def _subject(trial: Trial, size: tuple[int, int], seed: int) -> Pairing | nn.Module:
    """Return the pairing or the model to train.

    An encoder with a fixed image size is built for `size`, unless the pairing sets `image_size`.
    """
    if isinstance(trial.subject, Pairing):
        return replace(trial.subject, image_size=trial.subject.image_size or size)
    torch.manual_seed(seed_of("weights", seed) % 2**63)
    return build_subject(trial)


def _count_steps(seconds: float, run: Callable[[int, Callable[[str], None]], object], report: Callable[[str], None]) -> int:
    """Return how many training steps take about `seconds`.

    The number is estimated from the median time of a few steps of a separate training run, which is then stopped.
    """
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
