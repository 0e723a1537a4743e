"""Test whether a model can be trained in the channels-last memory format, in which most models are faster."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from zoo.common.foreign_code import ForeignError, foreign_code

__all__ = ["takes_channels_last"]


def takes_channels_last(model: nn.Module, in_channels: int, size: tuple[int, int]) -> bool:
    """Return whether a training step on channels-last images works on the CPU; a copy of the model is run for one step.

    A decoder that calls `.view` on a feature map raises an error on such images. A model with a strided 1x1 convolution of
    fewer than 16 channels is not run: PyTorch corrupts memory in its gradient (oneDNN issue 6035).
    """
    if any(_is_unsafe(layer) for layer in model.modules()):
        return False
    twin = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    image = torch.zeros(2, in_channels, *size).to(memory_format=torch.channels_last)
    try:
        with foreign_code():
            logits = twin(image)
            sum(each.mean() for each in (logits if isinstance(logits, tuple) else (logits,))).backward()
    except ForeignError:  # if it is for another reason, the first step says so
        return False
    return True


def _is_unsafe(layer: Any) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return False
    return tuple(layer.kernel_size) == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < 16
