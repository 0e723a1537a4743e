"""The data loaders of one training run, for Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, default_collate, get_worker_info

from zoo.common.devices import count_cores
from zoo.data.samples import Samples
from zoo.data.segmentation_data import SegmentationData
from zoo.training.loop.augmentation import Augmentation
from zoo.training.loop.sampling import Order, ResumableLoader, TrainingSamples
from zoo.training.loop.tiling import Tiling
from zoo.training.settings import TrainSettings

__all__ = ["TrainingData"]

MOST_WORKERS = 8
"""The largest number of processes that load images for one accelerator, if `workers` is "auto"."""

Batch = tuple[Tensor, Tensor]


class TrainingData(LightningDataModule):
    """The batches of images with masks for training, validation and test.

    The data are not attributes of the trained module, since callbacks such as `WeightAveraging` copy the whole module.

    Attributes:
        steps: the number of optimizer steps of the whole run.
    """

    def __init__(self, data: SegmentationData, settings: TrainSettings, *, tiling: Tiling) -> None:
        super().__init__()
        self.steps = settings.num_steps(len(data.train))
        self._data = data
        self._settings = settings
        self._tiling = tiling

    def train_dataloader(self) -> ResumableLoader:
        """Return a loader of the batches that the run has not used yet."""
        settings, trainer = self._settings, self.trainer
        assert trainer is not None
        augmentation = Augmentation(size=self._tiling.crop, ignored=self._data.ignored, is_on=settings.augment)
        samples = TrainingSamples(self._data.train, augmentation=augmentation, seed=settings.seed)
        order = Order(
            first=trainer.global_step * settings.accumulation,
            batches=self.steps * settings.accumulation,
            batch=settings.batch,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return ResumableLoader(samples, batch_sampler=order, **self._loading())

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of this process's share of the validation images."""
        return self._loader(self._data.validation)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of this process's share of the test images."""
        return self._loader(self._data.test)

    def _loader(self, samples: Samples) -> DataLoader[Batch]:
        """Return a loader that reads each image once.

        If the images differ in size or are predicted in tiles, each batch has a single image.
        """
        assert self.trainer is not None
        mine = range(self.trainer.global_rank, len(samples), self.trainer.world_size)
        size = self._data.size
        count = self._settings.batch if size and self._tiling.takes_whole(size) else 1
        batches = [list(mine[start : start + count]) for start in range(0, len(mine), count)]
        return DataLoader(samples, batch_sampler=batches, collate_fn=_collate, **self._loading())  # type: ignore[arg-type]

    def _loading(self) -> dict[str, Any]:
        """Return the keyword arguments of a loader: the number of processes, and whether batches go to pinned memory."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device.type
        if self._settings.workers != "auto":
            workers = self._settings.workers
        elif device == "cpu":  # loading processes would compete with the training process for the same cores
            workers = 0
        else:
            workers = min(MOST_WORKERS, count_cores() // self.trainer.world_size)
        return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device == "cuda"}


def _collate(samples: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return a batch. A single sample is not copied, unless a loading process must send it to the training process."""
    if len(samples) == 1 and get_worker_info() is None:
        return [part[None] for part in samples[0]]
    batch: list[Tensor] = default_collate(samples)
    return batch
