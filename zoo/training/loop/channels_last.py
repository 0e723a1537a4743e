"""Test whether a model can be trained in the channels-last memory format, in which most models are faster."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from zoo.common.foreign_code import ForeignError, foreign_code

__all__ = ["takes_channels_last"]


def takes_channels_last(model: nn.Module, in_channels: int, size: tuple[int, int]) -> bool:
    """Train a copy of the model for one step on channels-last images on the CPU, and return whether that works.

    A decoder that calls `.view` on a feature map raises an error on such images. If a model has a strided 1x1 convolution of
    fewer than 16 channels, it is not run, and the function returns False: PyTorch corrupts memory when it computes the gradient
    of such a convolution (oneDNN issue 6035).
    """
    if any(_is_unsafe(layer) for layer in model.modules()):
        return False
    twin = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    image = torch.zeros(2, in_channels, *size).to(memory_format=torch.channels_last)
    try:
        with foreign_code():
            logits = twin(image)
            sum(each.mean() for each in (logits if isinstance(logits, tuple) else (logits,))).backward()
    except ForeignError:  # if channels-last is not the reason for the error, the first training step raises it again
        return False
    return True


def _is_unsafe(layer: Any) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return False
    return tuple(layer.kernel_size) == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < 16
