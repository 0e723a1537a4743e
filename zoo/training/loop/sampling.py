"""Choose the samples of a step, and their augmentation. The choice depends only on the seed and the number of the step.

It does not depend on the state of a random generator. So a run that was killed resumes as if it had not been killed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.data.samples import Samples
from zoo.training.loop.augmentation import Augmentation

__all__ = ["Order", "ResumableLoader", "TrainingSamples", "seed_of"]


def seed_of(*facts: object) -> int:
    """Return a seed computed as a hash of the arguments."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:7], "big")


class TrainingSamples(Dataset[tuple[Tensor, Tensor]]):
    """An endless sequence of training samples, with a different order in each epoch.

    The sample at a position, and its augmentation, depend only on the seed and the position.
    """

    def __init__(self, samples: Samples, *, augmentation: Augmentation, seed: int) -> None:
        self._samples = samples
        self._augmentation = augmentation
        self._seed = seed
        self._permutation: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, index = divmod(position, len(self._samples))
        image, mask = self._samples[self._shuffle(epoch)[index]]
        generator = torch.Generator().manual_seed(seed_of("augment", self._seed, position))
        return self._augmentation(image, mask, generator)

    def _shuffle(self, epoch: int) -> list[int]:
        if self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of("shuffle", self._seed, epoch))
            self._permutation = (epoch, torch.randperm(len(self._samples), generator=generator).tolist())
        return self._permutation[1]


class Order(Sampler[list[int]]):
    """For each batch that a process has not trained on yet, yields the positions of the batch's samples.

    If several processes train, each process has batches of its own.
    """

    def __init__(self, *, first: int, batches: int, batch: int, rank: int = 0, world: int = 1) -> None:
        """Store the numbers that determine the positions.

        Args:
            first: the number of batches of this process that are already done.
            batches: the number of batches of one process in the whole run.
            batch: the number of samples in a batch.
            rank: the number of this process.
            world: the number of processes.
        """
        self._first = first
        self._batches = batches
        self._batch = batch
        self._rank = rank
        self._world = world

    def __len__(self) -> int:
        return self._batches  # all batches of the run, since Lightning also counts those that are already done

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self._first, self._batches):
            start = (number * self._world + self._rank) * self._batch
            yield list(range(start, start + self._batch))


class ResumableLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader whose state is empty, since `Order` already starts at the right batch. Lightning requires both methods."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the state."""
