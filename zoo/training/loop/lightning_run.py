"""Train, resume and test one run with Lightning."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from zoo.common.json_files import write_json
from zoo.data.segmentation_data import SegmentationData
from zoo.errors import ZooError
from zoo.registry.specs import Preprocessing
from zoo.training.loop.checkpoint_files import WholeCheckpoints, read_fitting
from zoo.training.loop.data_module import TrainingData
from zoo.training.loop.module import TrainingModule
from zoo.training.loop.tiling import Tiling
from zoo.training.loop.trainer_parts import make_trainer
from zoo.training.losses import Loss
from zoo.training.scores import Scores
from zoo.training.settings import TrainSettings

__all__ = ["Outcome", "Parts", "run"]

CHECKPOINTS = 20
"""The number of times that `last.ckpt` is written in a run, if the run has enough steps."""
MIN_STEPS = 25
NEVER = 2**31
"""A number of batches that no run reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        steps: the number of steps done.
        tested: the name of the checkpoint that was tested.
        scores: the scores of the test.
        waiting: the share of the training time of this call in which training waited for images; None if at most one step was
            done in this call.
        validation: the mIoU on the validation images when training stopped; None if it was not to stop early.
        is_first: whether this process writes the result. If there are several devices, each has a process, and only one writes.
    """

    steps: int
    tested: str
    scores: Scores
    waiting: float | None
    validation: float | None
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The objects that a run uses.

    Attributes:
        model: the model to train.
        loss: the loss.
        preprocessing: the normalization of images with values from 0 to 1; None to leave the images unchanged.
        callbacks: the callbacks that the settings name.
        loggers: the loggers that the settings name.
        memory_format: the memory format of the model and its images.
        facts: what is stored in each checkpoint in addition to the weights: the run's identity, and the `ModelFacts` from which
            `zoo.load` builds the model.
    """

    model: nn.Module
    loss: Loss
    preprocessing: Preprocessing | None
    callbacks: Sequence[Callback]
    loggers: Sequence[Logger]
    memory_format: torch.memory_format
    facts: Mapping[str, Any]


def run(
    parts: Parts,
    data: SegmentationData,
    settings: TrainSettings,
    output: Path,
    *,
    size: tuple[int, int],
    show_progress: bool,
    tell: Callable[[str], None] | None,
    stop_after: int | None,
) -> Outcome:
    """Train and test a model.

    When the training is finished and only the test remains, `trained.json` is written to the folder.

    Args:
        parts: the objects that the run uses.
        data: the images and masks.
        settings: how to train.
        output: the folder of the run.
        size: (H, W) of the crops.
        show_progress: whether to draw a progress bar.
        tell: called with a line before each batch.
        stop_after: the step after which training stops for now; None to train to the end. If it is set, `settings.validations`
            must be 0, and the model is validated when it stops.

    Raises:
        ZooError: the process was sent SIGTERM.
    """
    tiling = Tiling.of(parts.model, size)
    batches = TrainingData(data, settings, tiling=tiling)
    steps = batches.steps
    module = TrainingModule(
        parts.model.to(memory_format=parts.memory_format),
        settings,
        steps=steps,
        frozen_steps=settings.num_frozen_steps(len(data.train)),
        num_classes=len(data.classes),
        ignored=data.ignored,
        loss=parts.loss,
        preprocessing=parts.preprocessing,
        tiling=tiling,
        facts=parts.facts,
        memory_format=parts.memory_format,
    )
    last, best, trained = output / "last.ckpt", output / "best.ckpt", output / "trained.json"
    run_id = parts.facts["run"]
    begun = read_fitting(last, run_id, module, steps)["global_step"] if last.exists() or trained.exists() else 0
    is_first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    if not begun and (output / "log").exists() and is_first_process:  # no checkpoint has been written yet, or it was removed
        logging.getLogger(__name__).warning("%s is missing: the run begins again with its first step.", last)
    interval = max(1, round(steps / settings.validations)) if settings.validations else None
    end = steps if stop_after is None else min(stop_after, steps)
    if interval and begun > interval:  # a best checkpoint exists: report damage now, not after hours of training
        read_fitting(best, run_id, module, steps)
    keeper = ModelCheckpoint(output, "best", monitor="val_miou", mode="max", enable_version_counter=False)
    waiting = _MeasureWaiting()
    stop = end if end < steps else None
    # The user's callbacks come first, so that an average of the weights, for example, is updated before it is saved.
    callbacks = [
        *parts.callbacks,
        _KeepLast(last, step=begun, interval=max(MIN_STEPS, steps // CHECKPOINTS), validations=interval, end=stop),
    ]
    if interval:
        callbacks.append(keeper)
    if settings.patience:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=settings.patience))
    if tell:
        callbacks.append(_Tell(tell, steps))
    trainer = make_trainer(
        settings,
        max_steps=end,
        val_check_interval=interval * settings.accumulation if interval else NEVER,
        limit_val_batches=0 if interval is None and stop_after is None else 1.0,
        log_every_n_steps=max(1, min(50, steps // 100)),
        default_root_dir=output,
        logger=[*_loggers(output, begun), *parts.loggers],
        callbacks=[*callbacks, waiting],  # the last one, so that the time of the other callbacks does not count as waiting
        plugins=[WholeCheckpoints()],
        enable_checkpointing=bool(interval),
        enable_progress_bar=show_progress,
    )
    with _explain_sigterm(output):
        # A run that is to stop early, and is already there, has nothing to do. A run that is to end still has to be completed.
        if not trained.exists() and (begun < end or end == steps):
            trainer.fit(module, batches, ckpt_path=str(last) if last.exists() else None)
            begun = trainer.global_step
        if not trained.exists() and end == steps:
            trainer.save_checkpoint(last)
            if interval and module.validated_at != begun:
                trainer.validate(module, batches, verbose=False)
                if keeper.best_model_score is None or module.miou > keeper.best_model_score:
                    trainer.save_checkpoint(best)
            if trainer.is_global_zero:
                write_json(trained, {"steps": begun})
            trainer.strategy.barrier()
        tested = best if interval else last
        # `ckpt_path` is not used here: with it, an averaging callback would restore the weights that are not averaged.
        module.load_state_dict(read_fitting(tested, run_id, module, steps)["state_dict"])
        validation = None
        if stop_after is not None:
            trainer.validate(module, batches, verbose=False)
            validation = module.miou
        trainer.test(module, batches, verbose=False)
    assert module.scores is not None
    return Outcome(
        steps=begun,
        tested=tested.stem,
        scores=module.scores,
        waiting=waiting.share,
        validation=validation,
        is_first=trainer.is_global_zero,
    )


@contextmanager
def _explain_sigterm(output: Path) -> Iterator[None]:
    """Raise a ZooError after SIGTERM. Lightning alone would end the program after the current batch, with exit status 0."""
    try:
        yield
    except SIGTERMException as cause:
        raise ZooError(
            f"Training was ended by SIGTERM. Any checkpoint already written to {output} is kept. Run the same command again to "
            "continue from the last one."
        ) from cause


class _KeepLast(Callback):
    """Writes `last.ckpt` regularly, but not directly before a validation.

    A run that is resumed from a checkpoint directly before a validation would skip that validation. The checkpoint is also
    written after the step `end`, if that is set, so that training can go on from there in a later call.
    """

    def __init__(self, path: Path, *, step: int, interval: int, validations: int | None, end: int | None) -> None:
        self._path = path
        self._kept = step
        self._interval = interval
        self._validations = validations
        self._end = end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write `last.ckpt` if enough steps have passed since it was last written."""
        step = trainer.global_step
        is_due = step - self._kept >= self._interval or (step == self._end and step > self._kept)
        if is_due and not (self._validations and step % self._validations == 0):
            trainer.save_checkpoint(self._path)
            self._kept = step


class _Tell(Callback):
    """Calls a function with a line of text before each batch."""

    def __init__(self, tell: Callable[[str], None], steps: int) -> None:
        self._tell = tell
        self._steps = steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Report the step."""
        self._tell(f"step {trainer.global_step + 1} of {self._steps}")

    def on_validation_batch_start(self, *_: object, **__: object) -> None:
        """Report the validation."""
        self._tell("validating")

    def on_test_batch_start(self, *_: object, **__: object) -> None:
        """Report the test."""
        self._tell("testing")


class _MeasureWaiting(Callback):
    """Measures how long training waits for its batches. For each step, the share of waiting time is logged as `waiting`."""

    def __init__(self) -> None:
        self._ended: float | None = None
        self._began = 0.0
        self._waited = 0.0
        self._worked = 0.0
        self._last_wait = 0.0

    @property
    def share(self) -> float | None:
        """The share of the training time that was spent waiting; None after at most one step.

        The first step does not count, since it waits for the loading processes to start.
        """
        total = self._waited + self._worked
        return self._waited / total if total else None

    def on_train_batch_start(self, *_: object, **__: object) -> None:
        """Measure how long training waited for this batch."""
        self._began = time.perf_counter()
        self._last_wait = self._began - self._ended if self._ended is not None else 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add up the waiting and working times, and log the share of this step's time that was spent waiting."""
        now = time.perf_counter()
        worked = now - self._began
        if self._ended is not None:
            self._waited += self._last_wait
            self._worked += worked
        pl_module.log("waiting", self._last_wait / (self._last_wait + worked))
        self._ended = now

    def on_validation_end(self, *_: object) -> None:
        """Exclude the time of the validation from the waiting time of the next step."""
        self._ended = time.perf_counter()


def _loggers(output: Path, step: int) -> list[Logger]:
    """Return a logger for a CSV file and, if TensorBoard is installed, one for TensorBoard.

    Each call that resumes the run writes new log files.
    """
    version = f"from-step-{step}"
    loggers: list[Logger] = [CSVLogger(output, name="log", version=version, flush_logs_every_n_steps=50)]
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loggers.append(TensorBoardLogger(output, name="log", version=version))
    return loggers
