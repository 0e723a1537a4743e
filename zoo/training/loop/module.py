"""The module that Lightning trains. It defines the steps, frozen parts, optimizer, scores and content of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from zoo.common.devices import is_out_of_memory
from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.errors import PluginError, ZooError
from zoo.model.layers.normalization import Normalization
from zoo.model.tiled_prediction import predict_in_tiles
from zoo.model.tiles import default_overlap, tile_axes
from zoo.registry.specs import Preprocessing
from zoo.training.loop.checkpoint_files import check_weights
from zoo.training.loop.sampling import seed_of
from zoo.training.loop.tiling import Tiling
from zoo.training.losses import Loss
from zoo.training.scores import Scores, scores_of
from zoo.training.settings import TrainSettings

__all__ = ["TrainingModule"]

Batch = tuple[Tensor, Tensor]
NORMS = (nn.modules.batchnorm._BatchNorm,)


class TrainingModule(LightningModule):
    """A model with its loss, optimizer and scores.

    Attributes:
        model: the model.
        steps: the number of optimizer steps of the whole run.
        scores: the scores of the last validation or test.
        validated_at: the number of training steps that had been done at the last validation.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        *,
        steps: int,
        frozen_steps: int,
        num_classes: int,
        ignored: int,
        loss: Loss,
        preprocessing: Preprocessing | None,
        tiling: Tiling,
        facts: Mapping[str, Any],
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        super().__init__()
        self.model = model
        self.steps = steps
        self.scores: Scores | None = None
        self.validated_at = 0
        self._settings = settings
        self._tiling = tiling
        self._facts = dict(facts)
        self._memory_format = memory_format
        self._loss = loss
        self._normalize = Normalization(preprocessing) if preprocessing else nn.Identity()
        self._confusion = MulticlassConfusionMatrix(num_classes, ignore_index=ignored)
        self._frozen_steps = frozen_steps
        if self._frozen_steps >= self.steps:
            self._encoder().requires_grad_(False)

    @property
    def miou(self) -> float:
        """The mean intersection over union of the last validation."""
        assert self.scores is not None
        return self.scores.miou

    def forward(self, image: Tensor) -> Any:
        """Return the logits of images with values from 0 to 1: (N, channels, H, W) -> (N, classes, H, W), or a tuple of logits.

        Raises:
            PluginError: the model's own code raised an error other than a `ZooError`.
            ForeignError: the model ran out of memory.
        """
        return self._run(self._normalize(image))

    def _run(self, image: Tensor) -> Any:
        """Return the logits of the model for normalized images."""
        try:
            with foreign_code():
                return self.model(image.to(memory_format=self._memory_format))
        except ForeignError as failure:
            if is_out_of_memory(failure):
                raise
            name = getattr(self.model, "pairing", type(self.model).__name__)
            raise PluginError(
                f"{name} fails after step {self.global_step} on images {tuple(image.shape)}: {failure}."
            ) from failure.__cause__

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of one batch."""
        image, mask = batch
        logits = self(image)
        if isinstance(logits, tuple):
            main, *aux = (self._loss(each, mask) for each in logits)
            loss = main + self._settings.aux_weight * sum(aux) / len(aux)
        else:
            loss = self._loss(logits, mask)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Seed random draws such as dropout with the number of the batch, and put frozen parts into eval mode."""
        accumulation = self._settings.accumulation
        number = self.global_step * accumulation + index % accumulation
        torch.manual_seed(seed_of("step", self._settings.seed, number, self.global_rank))
        self.model.train()
        if self.global_step < self._frozen_steps:
            self._encoder().eval()
        if self._settings.freeze_norms:
            for layer in self.model.modules():
                if isinstance(layer, NORMS):
                    layer.eval()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of the encoder while it is frozen for the first steps.

        The encoder's parameters get gradients even then, because DDP needs the same set of trained parameters in all steps.
        """
        if self.global_step < self._frozen_steps:
            for parameter in self._encoder().parameters():
                parameter.grad = None

    def on_validation_epoch_start(self) -> None:
        """Reset the confusion matrix."""
        self._confusion.reset()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Predict the classes of a batch's pixels, and add them to the confusion matrix.

        Images larger than the crop are predicted in tiles, in the same way as by `zoo.Predictor`.
        """
        images, masks = batch
        if self._tiling.takes_whole(masks.shape[-2:]):
            self._confusion.update(self._finite_logits(self._normalize(images)).argmax(dim=1), masks)
        else:
            for image, mask in zip(images, masks, strict=True):
                self._count_in_tiles(image, mask)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.scores = scores_of(self._confusion.compute())
        self.validated_at = self.global_step
        for name in ("miou", "dice", "accuracy"):
            self.log(f"val_{name}", getattr(self.scores, name), prog_bar=name == "miou", sync_dist=False)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Store the scores. If several processes test, each of them stores the scores of all images, not only of its own."""
        self.scores = scores_of(self._confusion.compute())

    def configure_optimizers(self) -> Any:
        """Return AdamW with a one-cycle schedule (Smith and Topin 2019, arXiv:1708.07120)."""
        settings = self._settings
        encoder = {id(parameter) for parameter in self._encoder().parameters()}
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        rate_of = {True: settings.encoder_learning_rate or settings.learning_rate, False: settings.learning_rate}
        parts = {is_encoder: [each for each in learned if (id(each) in encoder) is is_encoder] for is_encoder in rate_of}
        groups = [{"params": part, "lr": rate_of[is_encoder]} for is_encoder, part in parts.items() if part]
        rates = [rate_of[is_encoder] for is_encoder, part in parts.items() if part]
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=self.steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `zoo.load` needs to build the model. If the weights contain NaN or infinity, raise an error instead."""
        check_weights(self.model, self.global_step, self._settings.learning_rate)
        checkpoint["zoo"] = self._facts

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device. If images are predicted in tiles, only the tiles are moved, later."""
        if self._tiling.takes_whole(batch[1].shape[-2:]):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch

    def _finite_logits(self, images: Tensor) -> Tensor:
        """Return the logits for normalized images.

        Raises:
            ZooError: a logit is NaN or infinite.
        """
        logits: Tensor = self._run(images)
        if not logits.isfinite().all():
            raise ZooError(
                f"The model's logits contain NaN or infinity after step {self.global_step}. Try a lower learning_rate, or "
                "precision=float32."
            )
        return logits

    def _count_in_tiles(self, image: Tensor, mask: Tensor) -> None:
        """Predict an image (channels, H, W) in tiles, and compare the prediction with the mask (H, W) strip by strip.

        Each strip is added to the confusion matrix.
        """
        height, width = mask.shape
        rows, columns = tile_axes(
            (height, width), sizes=self._tiling.sizes, tile=self._tiling.tile, overlap=default_overlap(self._tiling.tile)
        )

        def read(top: int, left: int) -> Tensor:
            pixels = image[:, top : top + rows.tile, left : left + columns.tile].to(self.device)
            normalized: Tensor = self._normalize(pixels[None])[0]
            return normalized

        def count(top: int, probabilities: Tensor) -> None:
            strip = mask[top : top + probabilities.shape[1]].to(self.device)
            self._confusion.update(probabilities.argmax(dim=0)[None], strip[None])

        predict_in_tiles(
            rows,
            columns,
            batch=self._settings.batch,
            device=self.device,
            read=read,
            predict=lambda tiles: self._finite_logits(tiles).float().softmax(dim=1),
            write=count,
        )

    def _encoder(self) -> nn.Module:
        """Return the attribute `encoder` of the model if it is a module, and otherwise an empty module."""
        encoder = getattr(self.model, "encoder", None)
        return encoder if isinstance(encoder, nn.Module) else nn.Identity()
