"""The losses of training: cross-entropy, Dice, or their sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

from zoo.training.settings import LossName

__all__ = ["Loss", "make_loss"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def make_loss(name: LossName, ignored: int) -> Loss:
    """Return a loss of logits (N, classes, H, W) and masks (N, H, W) of class indexes; ignored pixels do not count.

    Dice is segmentation_models_pytorch's (Milletari et al. 2016, arXiv:1606.04797), summed over the batch.
    """

    def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
        kept = (masks != ignored).sum().clamp(min=1)  # a batch of ignored pixels alone is 0, not NaN
        return F.cross_entropy(logits.float(), masks, ignore_index=ignored, reduction="sum") / kept

    if name == "cross-entropy":
        return cross_entropy
    from segmentation_models_pytorch.losses import DiceLoss

    dice = DiceLoss("multiclass", ignore_index=ignored)
    if name == "dice":
        return lambda logits, masks: dice(logits.float(), masks)
    return lambda logits, masks: cross_entropy(logits, masks) + dice(logits.float(), masks)
