"""Set up Lightning's trainer for one run: loggers, checkpoints, resuming, and the test at its end."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
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
from zoo.errors import OptionError, ZooError
from zoo.training.checkpoint_files import WholeCheckpoints, steps_of
from zoo.training.module import TrainingModule
from zoo.training.scores import Scores
from zoo.training.settings import TrainSettings

__all__ = ["Outcome", "run"]

CHECKPOINTS = 20
"""How often in a run the last state is kept, if it has enough steps."""
MIN_STEPS = 25
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        steps: the number of steps done.
        tested: the name of the checkpoint that was tested.
        scores: of the test.
        is_first: whether this process, of several, is the one that writes their result.
    """

    steps: int
    tested: str
    scores: Scores
    is_first: bool


def run(
    model: nn.Module,
    data: SegmentationData,
    settings: TrainSettings,
    output: Path,
    *,
    size: tuple[int, int],
    facts: Mapping[str, Any],
    memory_format: torch.memory_format,
    show_progress: bool,
    tell: Callable[[str], None] | None,
) -> Outcome:
    """Train and test.

    The folder has `trained.json` once nothing is left but the test.

    Raises:
        ZooError: the process was sent SIGTERM.
    """
    model = model.to(memory_format=memory_format)
    module = TrainingModule(model, data, settings, size=size, facts=facts, memory_format=memory_format)
    last, best, trained = output / "last.ckpt", output / "best.ckpt", output / "trained.json"
    run_id = facts["run"]
    begun = steps_of(last, run_id, module, module.steps) if last.exists() or trained.exists() else 0
    is_first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    if not begun and (output / "log").exists() and is_first_process:  # no checkpoint was written yet, or it was removed
        logging.getLogger(__name__).warning("%s is missing: the run begins again with its first step.", last)
    interval = max(1, round(module.steps / settings.validations)) if settings.validations else None
    if interval and begun > interval:  # a best checkpoint exists: report damage now, not after hours of training
        steps_of(best, run_id, module, module.steps)
    keeper = ModelCheckpoint(output, "best", monitor="val_miou", mode="max", enable_version_counter=False)
    callbacks: list[Callback] = [
        _KeepLast(last, step=begun, interval=max(MIN_STEPS, module.steps // CHECKPOINTS), validations=interval)
    ]
    if interval:
        callbacks.append(keeper)
    if settings.patience:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=settings.patience))
    if tell:
        callbacks.append(_Tell(tell, module.steps))
    trainer = Trainer(
        accelerator=settings.device.partition(":")[0],
        devices=_devices(settings),
        strategy="ddp" if settings.devices > 1 else "auto",
        use_distributed_sampler=False,
        precision=_precision(settings),
        max_steps=module.steps,
        max_epochs=-1,
        val_check_interval=interval,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if interval else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(50, module.steps // 100)),
        default_root_dir=output,
        logger=_loggers(output, begun),
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        enable_checkpointing=bool(interval),
        enable_progress_bar=show_progress,
        enable_model_summary=False,
    )
    with _explain_sigterm(output):
        if not trained.exists():
            trainer.fit(module, ckpt_path=str(last) if last.exists() else None)
            begun = trainer.global_step
            trainer.save_checkpoint(last)
            if interval and module.validated_at != begun:
                trainer.validate(module, verbose=False)
                if keeper.best_model_score is None or module.miou > keeper.best_model_score:
                    trainer.save_checkpoint(best)
            if trainer.is_global_zero:
                write_json(trained, {"steps": begun})
            trainer.strategy.barrier()
        tested = best if interval else last
        steps_of(tested, run_id, module, module.steps)  # report a damaged file here: Lightning's error would not explain it
        trainer.test(module, ckpt_path=str(tested), verbose=False)
    assert module.scores is not None
    return Outcome(steps=begun, tested=tested.stem, scores=module.scores, is_first=trainer.is_global_zero)


@contextmanager
def _explain_sigterm(output: Path) -> Iterator[None]:
    """Raise an error after SIGTERM, since Lightning ends the program with status 0 after the batch."""
    try:
        yield
    except SIGTERMException as cause:
        raise ZooError(
            f"Training was ended by SIGTERM. The last checkpoint in {output}, if there is one already, is kept, and the same "
            "command continues from there."
        ) from cause


class _KeepLast(Callback):
    """Keeps the last state, except before a validation, which a run resumed there would leave out."""

    def __init__(self, path: Path, *, step: int, interval: int, validations: int | None) -> None:
        self._path = path
        self._kept = step
        self._interval = interval
        self._validations = validations

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write it whole or not at all."""
        step = trainer.global_step
        if step - self._kept >= self._interval and not (self._validations and step % self._validations == 0):
            trainer.save_checkpoint(self._path)
            self._kept = step


class _Tell(Callback):
    """Reports each batch before it."""

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


def _devices(settings: TrainSettings) -> int | list[int]:
    _, sign, number = settings.device.partition(":")
    return [int(number)] if sign else settings.devices


def _precision(settings: TrainSettings) -> Any:
    is_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.precision == "auto":
        return "bf16-mixed" if is_cuda and torch.cuda.is_bf16_supported() else "32-true"
    if settings.precision == "float16" and not is_cuda:
        raise OptionError("precision float16 is for CUDA devices; give bfloat16 or float32.")
    return PRECISIONS[settings.precision]


def _loggers(output: Path, step: int) -> list[Logger]:
    """Return the loggers of a part of a run: each part that was resumed has a file of its own."""
    version = f"from-step-{step}"
    loggers: list[Logger] = [CSVLogger(output, name="log", version=version, flush_logs_every_n_steps=50)]
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loggers.append(TensorBoardLogger(output, name="log", version=version))
    return loggers
