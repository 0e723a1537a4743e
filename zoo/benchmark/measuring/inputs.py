"""Inputs of the measured models: a photograph or random pixels, and random labels."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.registry.specs import Preprocessing

__all__ = ["image_batch", "label_batch"]

PHOTOGRAPH = "chelsea.jpg"
"""Chelsea the cat, 451 x 300, by Stefan van der Walt, CC0 (from scikit-image's data, re-encoded as JPEG)."""


def image_batch(kind: str, *, batch: int, channels: int, height: int, width: int, preprocessing: Preprocessing) -> Tensor:
    """Return images (batch, channels, height, width), normalized as the model's weights require.

    Args:
        kind: "image" for the photograph, center-cropped to the aspect ratio of the images and resized (bicubic, antialiased).
            Every second image of the batch is mirrored. "random" for uniformly distributed pixels from torch's default
            generator.
        batch: the number of images.
        channels: the number of channels. The photograph's three channels are averaged if this is 1, and otherwise repeated in
            turn until there are enough.
        height: the height of the images.
        width: the width of the images.
        preprocessing: the mean, the standard deviation and the value range for the normalization.
    """
    if kind == "random":
        pixels = torch.rand(batch, channels, height, width)
    else:
        photograph = _photograph(height, width)
        planes = (
            photograph.mean(dim=0, keepdim=True)
            if channels == 1
            else torch.stack([photograph[index % 3] for index in range(channels)])
        )
        pixels = torch.stack([planes.flip(-1) if index % 2 else planes for index in range(batch)])
    low, high = preprocessing.value_range
    mean = torch.tensor(preprocessing.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, -1, 1, 1)
    return (pixels * (high - low) + low - mean) / std


def label_batch(*, batch: int, classes: int, height: int, width: int) -> Tensor:
    """Return random labels.

    Shapes: (batch, 1, height, width) with the values 0.0 and 1.0 for one class; (batch, height, width) with class indices for
    several classes.
    """
    if classes == 1:
        return torch.randint(0, 2, (batch, 1, height, width)).float()
    return torch.randint(0, classes, (batch, height, width))


def _photograph(height: int, width: int) -> Tensor:
    """Return the photograph as (3, height, width), with values from 0 to 1."""
    with files("zoo.benchmark.measuring").joinpath(PHOTOGRAPH).open("rb") as file, Image.open(file) as opened:
        picture = opened.convert("RGB")
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - scale * width) / 2, (picture.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
