"""How a pairing is trained: typed, with the defaults of a first attempt."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from zoo.common.configuration import Count, Side, Strict

__all__ = ["LossName", "Precision", "TrainSettings"]

LossName: TypeAlias = Literal["cross-entropy", "dice", "cross-entropy+dice"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Positive: TypeAlias = Annotated[float, Field(gt=0)]


class TrainSettings(Strict):
    """How a pairing is trained.

    Attributes:
        epochs: how often each training sample is seen; 30 where `steps` is not given either.
        steps: the number of steps of the optimizer, in place of `epochs`.
        batch: images a step and process.
        size: a side of the crops that are trained on, or [height, width]; by default the images', where all are of one size.
        loss: "cross-entropy", "dice" or their sum.
        aux_weight: of the mean loss of the auxiliary logits, beside the logits' own, for a pairing with `aux_levels`.
        learning_rate: the highest of the one-cycle schedule.
        encoder_learning_rate: the same for the encoder; by default as the others'.
        weight_decay: of AdamW.
        freeze_encoder: whether the encoder stays as it is, its norms' statistics included; a number: for so many epochs.
        freeze_norms: whether all batch norms keep their statistics: for batches of one or two images.
        augment: whether training images are flipped, scaled and changed in brightness and contrast.
        precision: "auto" is bfloat16 on an accelerator that has it, else float32.
        memory_format: "auto" is channels-last where the model takes it.
        validations: how often the validation part is looked at; 0 for never. The best of these is tested, else the last.
        patience: after how many validations without a better one training ends; by default never.
        workers: processes that load images.
        devices: of one machine, each with its own batch.
        device: "auto" (the accelerator where there is one), "cpu", "mps", "cuda", or "cuda:1" for one of several.
        seed: of the random weights, the order of the samples, augmentation and dropout.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch: Count = 8
    size: Side | None = None
    loss: LossName = "cross-entropy+dice"
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
    workers: Annotated[int, Field(ge=0)] = 0
    devices: Count = 1
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _has_one_length(self) -> TrainSettings:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are two ways to say one thing; give one of them")
        if self.patience is not None and not self.validations:
            raise ValueError("patience counts validations, and validations is 0")
        return self

    def num_steps(self, num_samples: int) -> int:
        """Return the steps of the whole run."""
        return self.steps or (self.epochs or 30) * self.steps_an_epoch(num_samples)

    def steps_an_epoch(self, num_samples: int) -> int:
        """Return in how many steps each sample is seen once."""
        return max(1, -(-num_samples // (self.batch * self.devices)))
