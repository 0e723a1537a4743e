"""Construct Lightning's trainer, callbacks and loggers from the settings. Refuse callbacks that would break resuming."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.loggers import Logger

from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.common.import_path import import_object
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, PluginError
from zoo.training.entries import ObjectEntry
from zoo.training.settings import RESERVED, TrainSettings

__all__ = ["make_callbacks", "make_loggers", "make_trainer", "notes_on_resuming"]

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}

ONE_EPOCH = "it counts epochs, but for Lightning, a whole run is a single epoch, so that it can be resumed at any step"
REFUSED: tuple[tuple[str, str], ...] = (
    ("Timer", "a run that it ends would count as finished. Use steps"),
    ("GradientAccumulationScheduler", "use accumulate_grad_batches under trainer"),
    ("BatchSizeFinder", "the batch size is a setting that identifies a run, so it must not change. Set batch"),
    ("LearningRateFinder", "the learning rate is a setting that identifies a run, so it must not change. Set learning_rate"),
    ("StochasticWeightAveraging", f"{ONE_EPOCH}. Use WeightAveraging or EMAWeightAveraging"),
    ("BaseFinetuning", f"{ONE_EPOCH}. Use freeze_encoder"),
    ("ModelPruning", ONE_EPOCH),
)
"""Lightning's callbacks that zoo refuses, and the reason and the alternative for each."""

Made = TypeVar("Made")


def make_trainer(settings: TrainSettings, **keywords: Any) -> Trainer:
    """Return Lightning's trainer, with the keyword arguments from the settings and those that zoo sets.

    Raises:
        OptionError: Lightning's Trainer has no such keyword, or does not accept its value.
    """
    known = [name for name in inspect.signature(Trainer).parameters if name not in RESERVED]
    for name in settings.trainer:
        if name not in known:
            raise OptionError(
                f"trainer: Lightning's Trainer has no keyword {name!r}.{did_you_mean(name, known)} Keywords: "
                f"{', '.join(known)}."
            )
    _, _, number = settings.device.partition(":")
    defaults: dict[str, Any] = {
        "strategy": "ddp" if settings.devices > 1 else "auto",
        "precision": _precision(settings),
        "enable_model_summary": False,
    }
    try:
        return Trainer(
            accelerator=settings.device.partition(":")[0],
            devices=[int(number)] if number else settings.devices,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            **{**defaults, **keywords, **settings.trainer},
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError) as cause:
        given = ", ".join(f"{name}: {value!r}" for name, value in settings.trainer.items()) or "none"
        raise OptionError(
            f"Lightning's Trainer could not be created: {cause} The given settings of `trainer:` are: {given}."
        ) from cause


def make_callbacks(entries: Sequence[ObjectEntry]) -> list[Callback]:
    """Return the callbacks that the settings name.

    Raises:
        OptionError: a class does not exist, does not accept the arguments, is not a callback, or would break resuming.
        PluginError: the code of a class raised an error.
    """
    made = [_make(entry, Callback, "callbacks") for entry in entries]
    for entry, callback in zip(entries, made, strict=True):
        for name, reason in REFUSED:
            if isinstance(callback, getattr(callbacks, name)):
                raise OptionError(f"callbacks: {entry.class_path} cannot be used: {reason}.")
    return made


def make_loggers(entries: Sequence[ObjectEntry], output: Path) -> list[Logger]:
    """Return the loggers that the settings name. By default, the `save_dir` of a logger is the folder of the run.

    Raises:
        OptionError: a class does not exist, does not accept the arguments, is not a logger, or needs a missing package.
        PluginError: the code of a class raised an error.
    """
    kind: Any = Logger  # mypy refuses an abstract class for `kind`
    return [_make(entry, kind, "loggers", save_dir=str(output)) for entry in entries]


def notes_on_resuming(entries: Sequence[ObjectEntry], made: Sequence[Callback]) -> list[str]:
    """Return a line for each callback that is not one of Lightning's own and stores no state in checkpoints."""
    return [
        f"{entry.class_path} stores no state in checkpoints; if it changes the training, an interrupted run is not resumed to "
        "the same weights"
        for entry, callback in zip(entries, made, strict=True)
        if type(callback).state_dict is Callback.state_dict and not type(callback).__module__.startswith("lightning.")
    ]


def _make(entry: ObjectEntry, kind: type[Made], key: str, **defaults: Any) -> Made:
    """Construct a callback or a logger from its entry.

    `defaults` are keyword arguments that are used if the class accepts them and the entry does not set them.
    """
    made_from = import_object(entry.class_path)
    if not isinstance(made_from, type) or not issubclass(made_from, kind):
        raise OptionError(
            f"{key}: {entry.class_path} must be a subclass of Lightning's {kind.__name__}; found {made_from!r:.80}."
        )
    accepted = inspect.signature(made_from).parameters
    arguments = {name: value for name, value in defaults.items() if name in accepted} | entry.init_args
    try:
        with foreign_code():
            return made_from(**arguments)
    except ForeignError as failure:
        cause = failure.__cause__
        if isinstance(cause, ImportError):  # Lightning's message names the package and how to install it
            raise OptionError(f"{key}: {entry.class_path} needs a package that is not installed: {cause}") from cause
        if isinstance(cause, TypeError | ValueError | MisconfigurationException):
            raise OptionError(
                f"{key}: {entry.class_path} does not accept the arguments {arguments}: {cause}. Arguments: "
                f"{', '.join(accepted)}."
            ) from cause
        raise PluginError(f"{key}: creating {entry.class_path} failed: {failure}.") from cause


def _precision(settings: TrainSettings) -> Any:
    is_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.precision == "auto":
        return "bf16-mixed" if is_cuda and torch.cuda.is_bf16_supported() else "32-true"
    if settings.precision == "float16" and not is_cuda:
        raise OptionError("precision float16 works only on CUDA devices. Use bfloat16 or float32.")
    return PRECISIONS[settings.precision]
