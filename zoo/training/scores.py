"""Scores of predicted masks: intersection over union, Dice and accuracy over all pixels of all images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from zoo.common.configuration import Count
from zoo.data.segmentation_data import SegmentationData

__all__ = ["Scores", "score_predictor", "scores_of"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""The type with which a score in a result file is validated. A score that is computed from no pixels at all is NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of a confusion matrix, each in 0 to 1.

    The pixels of all images are counted together, as in PASCAL VOC and Cityscapes. The mean of the scores of the single
    images would be a different number.

    Attributes:
        miou: the mean of `iou` over the classes that occur in the masks or the predictions.
        dice: the mean of the Dice coefficient (F1) over the same classes.
        accuracy: the share of pixels whose class is right.
        iou: the intersection over union of each class, in the order of the classes; None for a class that occurs neither in
            the masks nor in the predictions.
        pixels: the number of pixels that were counted, without ignored ones.
    """

    miou: Share
    dice: Share
    accuracy: Share
    iou: tuple[Share | None, ...]
    pixels: Count

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary that can be written as JSON."""
        return {**asdict(self), "iou": list(self.iou)}


def scores_of(confusion: Tensor) -> Scores:
    """Return the scores of a confusion matrix (classes, classes), with masks as rows and predictions as columns."""
    counts = confusion.double().cpu()
    hits, total = counts.diag(), counts.sum()
    sizes = counts.sum(0) + counts.sum(1)
    iou = [_ratio(hit, size - hit) for hit, size in zip(hits.tolist(), sizes.tolist(), strict=True)]
    dice = [_ratio(2 * hit, size) for hit, size in zip(hits.tolist(), sizes.tolist(), strict=True)]
    return Scores(
        miou=_mean(iou),
        dice=_mean(dice),
        accuracy=float(hits.sum() / total) if total else math.nan,
        iou=tuple(iou),
        pixels=int(total),
    )


def score_predictor(data: SegmentationData, predict: Callable[[Tensor], Tensor]) -> Scores:
    """Return the scores of `predict`, which maps an image (channels, H, W) to a mask (H, W), on the test images."""
    count = len(data.classes)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    for index in range(len(data.test)):
        image, mask = data.test[index]
        kept = mask != data.ignored
        pairs = mask[kept] * count + predict(image)[kept]
        confusion += torch.bincount(pairs, minlength=count**2).view(count, count)
    return scores_of(confusion)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
