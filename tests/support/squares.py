"""Data that a small network learns in seconds, and trainings on them."""

from __future__ import annotations

import torch

import zoo
from zoo import SegmentationData

ENCODER = "timm:test_resnet"
READS = 4 * 24
"""Of 24 samples before they are trained on: each is read four times, to know whether it stays the same."""


class Squares:
    """A bright square on a dark ground, somewhere else in each image."""

    def __init__(self, count, offset, *, broken_at=None):
        self.count = count
        self.offset = offset
        self.broken_at = broken_at
        self.taken = 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.taken += 1
        if self.taken == self.broken_at:
            raise OSError("the disk is gone")
        generator = torch.Generator().manual_seed(self.offset + index)
        top, left = torch.randint(0, 20, (2,), generator=generator).tolist()
        mask = torch.zeros(32, 32, dtype=torch.int64)
        mask[top : top + 12, left : left + 12] = 1
        image = 0.2 * torch.rand(3, 32, 32, generator=generator) + 0.7 * mask
        mask[:, 0] = 255
        return image, mask


def squares(**options):
    return SegmentationData(
        name="squares",
        classes=("ground", "square"),
        train=Squares(24, 0, **options),
        validation=Squares(4, 1000),
        test=Squares(6, 2000),
        size=(32, 32),
    )


def train_squares(output, data=None, **settings):
    settings = {"steps": 12, "batch": 4, "validations": 2, "levels": 3, **settings}
    return zoo.train(ENCODER, "unet-basic", data or squares(), output=output, **settings)


def weights(folder, name="last"):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"]


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
