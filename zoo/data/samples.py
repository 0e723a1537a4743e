"""The protocol of images with masks."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Samples"]


class Samples(Protocol):
    """Images with masks: any map-style data set, such as a `torch.utils.data.Dataset` with a length.

    Each item is an image (channels, H, W), float in about 0 to 1, and a mask (H, W) of class indexes and the ignored value,
    int64.
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """Return an image and its mask."""
        ...
