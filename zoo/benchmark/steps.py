"""What one measured call does: a model made from a trial's subject, and its inference or training step."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.benchmark.inputs import image_batch, label_batch
from zoo.benchmark.trial import Reference, Trial
from zoo.errors import ConfigError
from zoo.model import build_pairing
from zoo.specs import Preprocessing

__all__ = ["Step", "build_subject", "make_step"]

Step: TypeAlias = Callable[[], Any]
"""One call of what is measured, everything it needs bound to it."""


def build_subject(trial: Trial) -> nn.Module:
    """Return the model of a trial's pairing or reference; an encoder made for one image size is made for the trial's.

    Raises:
        ZooError: the pairing cannot be built.
        ConfigError: the reference's factory cannot be imported or gives no module.
    """
    subject = trial.subject
    if not isinstance(subject, Reference):
        return build_pairing(replace(subject, image_size=subject.image_size or (trial.height, trial.width)))
    module_name, _, name = subject.factory.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), name)(**subject.options)
    except Exception as cause:
        raise ConfigError(
            f"The baseline {subject.name!r} could not be made by {subject.factory}(**{dict(subject.options)!r}): "
            f"{type(cause).__name__}: {cause}."
        ) from cause
    if not isinstance(model, nn.Module):
        raise ConfigError(f"The baseline {subject.name!r}: {subject.factory} must return an nn.Module; found {model!r}.")
    return model


def make_step(model: nn.Module, trial: Trial, device: torch.device) -> Step:
    """Move the model to the device and return the step that the trial measures.

    Inference is a forward pass under `torch.inference_mode`. A training step is forward, loss (binary cross-entropy for
    one class, else cross-entropy), backward, and AdamW. Under "bfloat16" the forward pass and the loss run in autocast.
    "channels_last" is the memory format of weights and input; under "compile" the model is `torch.compile`d for its shape.
    """
    preprocessing = getattr(model, "preprocessing", None) or Preprocessing.identity(trial.in_channels)
    model = model.to(device)
    image = image_batch(
        trial.input,
        batch=trial.batch,
        channels=trial.in_channels,
        height=trial.height,
        width=trial.width,
        preprocessing=preprocessing,
    ).to(device)
    if trial.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    if trial.mode == "inference":
        return _inference_step(_made_to_run(model.eval(), trial), image, trial.dtype)
    labels = label_batch(batch=trial.batch, classes=trial.classes, height=trial.height, width=trial.width).to(device)
    return _training_step(_made_to_run(model.train(), trial), image, labels, trial.dtype)


def _made_to_run(model: nn.Module, trial: Trial) -> nn.Module:
    if trial.runtime == "eager":
        return model
    compiled = torch.compile(model, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


def _inference_step(model: nn.Module, image: Tensor, dtype: str) -> Step:
    def step() -> Tensor:
        with torch.inference_mode(), _precision(image.device, dtype):
            logits: Tensor = model(image)
        return logits

    return step


def _training_step(model: nn.Module, image: Tensor, labels: Tensor, dtype: str) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss_of = F.binary_cross_entropy_with_logits if labels.is_floating_point() else F.cross_entropy

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with _precision(image.device, dtype):
            loss = loss_of(model(image), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def _precision(device: torch.device, dtype: str) -> contextlib.AbstractContextManager[Any]:
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type if device.type != "meta" else "cpu", dtype=torch.bfloat16)
