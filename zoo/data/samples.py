"""Images with their masks, whatever holds them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Samples"]


class Samples(Protocol):
    """Images with their masks: any map-style dataset, such as a `torch.utils.data.Dataset` with a length.

    Each item is an image (channels, H, W), float in 0 to 1, and a mask (H, W), int64, of class indexes and the ignored value.
    """

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """Return one image and its mask."""
        ...
