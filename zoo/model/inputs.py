"""Check the image that a model receives, and explain why the model failed on an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.model.layers.resizing import is_open
from zoo.model.outputs import describe
from zoo.pairing.pairing import Pairing

__all__ = ["check_image", "explain_mismatch", "is_autocast"]


def check_image(image: Tensor, model: nn.Module, pairing: Pairing) -> None:
    """Raise an InputError for an image of a wrong shape or dtype.

    Symbolic sizes, which occur during an export, are not checked.

    Args:
        image: the image.
        model: the model.
        pairing: the model's pairing.
    """
    channels = pairing.in_channels
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != channels:
        found = tuple(image.shape) if isinstance(image, Tensor) else describe(image)
        raise InputError(
            f"{_name(pairing)} takes images of shape (N, {channels}, H, W); "
            f"found {found}. Add the batch axis, or build a model with the in_channels= of your images."
        )
    batch, _, height, width = image.shape
    if (not is_open(height) and height == 0) or (not is_open(width) and width == 0):
        raise InputError(
            f"{_name(pairing)} takes images of at least one pixel; found the shape {tuple(image.shape)}. Skip empty images."
        )
    if model.training and not is_open(batch) and batch == 0:
        raise InputError(
            f"{_name(pairing)} cannot be trained on an empty batch; found the shape {tuple(image.shape)}. Skip the batch, or "
            "call model.eval() if you need its logits."
        )
    if not image.is_floating_point():
        raise InputError(
            f"{_name(pairing)} takes floating-point images; found {image.dtype}. Scale them "
            "to the value range of model.preprocessing, subtract its mean and divide by its std."
        )
    # An encoder may itself cast a float32 image to another dtype, so float32 is refused only after the model has failed.
    if image.dtype != torch.float32 and (problem := _explain_dtype(image, model, pairing)):
        raise InputError(problem)


def explain_mismatch(image: Tensor, model: nn.Module, pairing: Pairing) -> str | None:
    """Return a message that explains why the model failed on an image; None if the reason is unknown."""
    devices = {entry.device for entry in model.parameters()}
    if devices and image.device not in devices:
        place = " and ".join(sorted(map(str, devices)))
        return f"The model is on {place}, but the image is on {image.device}. Move both to one device with `.to(device)`."
    if image.shape[0] == 0:
        return f"{_name(pairing)} fails on an empty batch, {tuple(image.shape)}. Skip the batch."
    return _explain_dtype(image, model, pairing)


def _explain_dtype(image: Tensor, model: nn.Module, pairing: Pairing) -> str | None:
    """Return an error message if the model has parameters, but none of the image's dtype.

    Otherwise, or under autocast, return None.
    """
    if image.dtype != torch.float64 and is_autocast(image.device.type):
        return None
    has = None
    for entry in model.parameters():  # a replica of DataParallel has no parameters
        if entry.dtype == image.dtype:
            return None
        if has is None and entry.is_floating_point():
            has = entry.dtype
    if has is None:
        return None
    return (
        f"{_name(pairing)} has parameters of {has}; found an image of {image.dtype}. "
        f"Convert the image with image.to({has}), or the model with model.to({image.dtype})."
    )


def _name(pairing: Pairing) -> str:
    return f"{pairing.encoder} x {pairing.decoder}"


def is_autocast(device: str) -> bool:
    """Return whether autocast is enabled for a type of device. If so, each layer casts its inputs itself."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
