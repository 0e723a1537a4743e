"""The settings for training, with types and with defaults that suit a first attempt. This module does not import torch."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from zoo.checkpoints.hub import HUB
from zoo.common.configuration import Count, Side, Strict, one_of_kinds
from zoo.common.import_path import make_absolute, source_file
from zoo.training.entries import LOSSES, LossEntry, LossTerm, Objects, Positive, read_loss

__all__ = ["RESERVED", "Precision", "TrainSettings"]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]

RESERVED = {
    **dict.fromkeys(("max_steps", "min_steps", "max_epochs", "min_epochs", "max_time"), "use steps or epochs"),
    **dict.fromkeys(("accelerator", "devices"), "use device and devices"),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"), "use validations"),
    "num_nodes": "training runs on the devices of one machine",
    "logger": "use loggers",
    "callbacks": "use the key callbacks of the training itself",
    "default_root_dir": "use output",
    **dict.fromkeys(("enable_checkpointing", "plugins"), "zoo writes the checkpoints that a run is resumed from"),
    **dict.fromkeys(
        ("limit_train_batches", "overfit_batches", "fast_dev_run", "barebones"),
        "use steps, and a smaller set of images, so that an interrupted run can be resumed",
    ),
    **dict.fromkeys(
        ("use_distributed_sampler", "reload_dataloaders_every_n_epochs"),
        "the order of the images is a function of the seed, so that an interrupted run can be resumed",
    ),
}
"""The keywords of Lightning's Trainer that the settings cannot set, and what to do instead."""


class TrainSettings(Strict):
    """How a pairing is trained.

    Attributes:
        epochs: how many times each training sample is seen. If neither `epochs` nor `steps` is set, it is 30.
        steps: the number of optimizer steps, instead of `epochs`.
        batch: the number of images in a batch of one device. In validation and test, it is also the number of tiles in a batch.
        size: the side of the training crops, or [height, width]; by default the size of the images, if all have the same size.
            For validation and test, larger images are predicted in tiles of this size.
        loss: a name (cross-entropy, soft-cross-entropy, dice, jaccard, tversky, focal, lovasz, mcc), a sum such as
            cross-entropy+dice, a mapping of names to weights, a list of {loss, weight, options}, or the import path of
            your own function.
        class_weights: a weight for each class, in the order of the classes; or auto, which gives rare classes higher weights
            (the median frequency of all classes divided by the frequency of the class).
        aux_weight: the weight of the mean loss of the auxiliary logits, for a pairing with `aux_levels`.
        learning_rate: the highest learning rate of the one-cycle schedule.
        encoder_learning_rate: the highest learning rate of the encoder; by default `learning_rate`.
        weight_decay: the weight decay of AdamW.
        freeze_encoder: true if the encoder stays unchanged, including the statistics of its norms; or the number of epochs for
            which it stays unchanged before its training begins.
        freeze_norms: whether all batch norms keep their statistics. This helps if batches have only one or two images.
        augment: whether training images are flipped, scaled, and changed in brightness and contrast.
        precision: float32, bfloat16, float16, or auto: bfloat16 on a CUDA device that supports it, and float32 elsewhere.
        memory_format: contiguous, channels_last, or auto: channels-last if the model supports it.
        validations: how many times during the training the model is scored on the validation images. The checkpoint with the
            best score is tested. With 0, there are no validations, and the last checkpoint is tested.
        patience: the number of successive validations without improvement after which training ends. By default, training never
            ends early.
        workers: the number of processes that load images; auto is 0 on a CPU, and up to 8 for each accelerator.
        devices: the number of devices of this machine, each with its own batch.
        device: auto (the accelerator if there is one), cpu, mps, cuda, or cuda:1 for one of several.
        seed: the seed of the random weights, the order of the samples, augmentation and dropout.
        init_from: a saved model or a checkpoint. Training starts from its weights. If its number of classes differs, the head
            starts from random weights.
        trainer: keyword arguments of Lightning's Trainer, such as accumulate_grad_batches, gradient_clip_val, sync_batchnorm.
        callbacks: callbacks of Lightning, such as lightning.pytorch.callbacks.EMAWeightAveraging; each an import path, or
            {class_path, init_args}.
        loggers: loggers of Lightning, in addition to those for a CSV file and for TensorBoard. They are given in the same way
            as callbacks.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch: Count = 8
    size: Side | None = None
    loss: LossEntry = "cross-entropy+dice"
    class_weights: Annotated[
        Literal["auto"] | Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2)] | None,
        one_of_kinds("'auto' or a list of numbers of at least 0, one for each class,"),
    ] = None
    aux_weight: Positive = 0.4
    learning_rate: Positive = 1e-3
    encoder_learning_rate: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    freeze_encoder: bool | Count = False
    freeze_norms: bool = False
    augment: bool = True
    precision: Precision = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    validations: Annotated[int, Field(ge=0)] = 10
    patience: Count | None = None
    workers: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0)], one_of_kinds("'auto' or a whole number of at least 0")
    ] = "auto"
    devices: Count = 1
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    init_from: Annotated[str | None, BeforeValidator(lambda value: fspath(value) if isinstance(value, PathLike) else value)] = (
        None
    )
    trainer: dict[str, JsonValue] = {}
    callbacks: Objects = []
    loggers: Objects = []

    @model_validator(mode="after")
    def _check_together(self) -> TrainSettings:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps both set the length of the training; give one of them")
        if self.patience is not None and not self.validations:
            raise ValueError(
                "patience counts validations, but validations is 0; set validations to at least 1, or leave patience out"
            )
        if "precision" in self.trainer and self.precision != "auto":
            raise ValueError(f"precision is given twice: {self.precision}, and {self.trainer['precision']} for the trainer")
        return self

    @field_validator("trainer")
    @classmethod
    def _check_trainer(cls, trainer: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in trainer:
            if name in RESERVED:
                raise ValueError(f"{name} cannot be passed to Lightning's Trainer: {RESERVED[name]}")
        batches = trainer.get("accumulate_grad_batches", 1)
        if not isinstance(batches, int) or isinstance(batches, bool) or batches < 1:
            raise ValueError(f"accumulate_grad_batches must be a whole number of at least 1; found {batches!r}")
        strategy = trainer.get("strategy", "ddp")
        if not isinstance(strategy, str) or not strategy.startswith("ddp"):
            raise ValueError(
                f"strategy must be one of Lightning's ddp strategies, which keep a whole checkpoint; found {strategy!r}"
            )
        return trainer

    @property
    def loss_terms(self) -> list[LossTerm]:
        """The terms of the loss."""
        return read_loss(self.loss)

    @property
    def accumulation(self) -> int:
        """The number of batches whose gradients are added up for one step of the optimizer."""
        batches = self.trainer.get("accumulate_grad_batches", 1)
        assert isinstance(batches, int)
        return batches

    def num_steps(self, num_samples: int) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self.steps or (self.epochs or 30) * self.steps_an_epoch(num_samples)

    def steps_an_epoch(self, num_samples: int) -> int:
        """Return the number of optimizer steps in one epoch, in which each sample is seen once."""
        return max(1, -(-num_samples // (self.batch * self.devices * self.accumulation)))

    def num_frozen_steps(self, num_samples: int) -> int:
        """Return the number of optimizer steps in which the encoder is frozen."""
        steps = self.num_steps(num_samples)
        if isinstance(self.freeze_encoder, bool):
            return steps if self.freeze_encoder else 0
        return min(steps, self.freeze_encoder * self.steps_an_epoch(num_samples))

    def source_files(self) -> list[Path]:
        """Return the Python files of those losses, callbacks and loggers that are given as file.py:Name."""
        paths = [*(term.loss for term in self.loss_terms), *(each.class_path for each in (*self.callbacks, *self.loggers))]
        return [file for path in paths if (file := source_file(path)) is not None]

    def own_objects(self) -> list[str]:
        """Return those losses, callbacks and loggers that are given as package.module.Name, except those of Lightning."""
        losses = [term.loss for term in self.loss_terms if term.loss not in LOSSES]
        paths = [*losses, *(each.class_path for each in (*self.callbacks, *self.loggers))]
        return [path for path in paths if source_file(path) is None and not path.startswith("lightning.")]

    def identity(self) -> dict[str, Any]:
        """Return the settings as plain data that identifies a run.

        Files are named without their folders, so a run whose files were moved is still the same run.
        """

        def shorten(path: str) -> str:
            return make_absolute(Path(path).name, Path()) if source_file(path) else path

        found = self.model_dump(mode="json")
        found["init_from"] = self.init_from is not None
        if any(source_file(term.loss) for term in self.loss_terms):
            found["loss"] = [term.model_copy(update={"loss": shorten(term.loss)}).model_dump() for term in self.loss_terms]
        for each in (*found["callbacks"], *found["loggers"]):
            each["class_path"] = shorten(each["class_path"])
        return found

    def relative_to(self, base: Path) -> Self:
        """Return the same settings with absolute paths. Relative paths start from `base`, the folder of the YAML file."""
        changes: dict[str, Any] = {}
        if any(source_file(term.loss) for term in self.loss_terms):
            terms = (term.model_copy(update={"loss": make_absolute(term.loss, base)}) for term in self.loss_terms)
            changes["loss"] = [term.model_dump() for term in terms]
        for name, entries in (("callbacks", self.callbacks), ("loggers", self.loggers)):
            if entries:
                changes[name] = [
                    each.model_copy(update={"class_path": make_absolute(each.class_path, base)}) for each in entries
                ]
        if self.init_from is not None and not self.init_from.startswith(HUB):
            changes["init_from"] = str(base / self.init_from)
        return self.model_copy(update=changes)
