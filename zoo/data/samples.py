"""The protocol for data sets of images with masks."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Samples"]


class Samples(Protocol):
    """Images with masks: any map-style data set, such as a `torch.utils.data.Dataset` with a length.

    Each item is a pair of an image and its mask. The image is a float tensor (channels, H, W) with values of about 0 to 1. The
    mask is an int64 tensor (H, W) of class indexes; ignored pixels have the value `SegmentationData.ignored`.
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """Return an image and its mask."""
        ...
