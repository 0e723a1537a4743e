"""Build the model of a trial and the step that the trial measures: one call of inference or training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.benchmark.measuring.inputs import image_batch, label_batch
from zoo.benchmark.trial import Reference, Trial
from zoo.errors import ConfigError
from zoo.inference.deployment.checked import Way, check_output, checked_program
from zoo.inference.deployment.passes import PASSES
from zoo.inference.reference import reference_of
from zoo.inference.runtimes import Program, autocast, original_program, recorded_program, why_not
from zoo.model.building import build_pairing
from zoo.registry.specs import Preprocessing

__all__ = ["Step", "build_subject", "check_runtime", "make_step"]

Step: TypeAlias = Callable[[], Any]
"""A function without arguments that makes one measured call."""

TOLERANCE = 1e-4
"""The largest accepted difference between a runtime's output and the model's in float32, as a share of the largest logit.

If the model itself computes less exactly (bfloat16 or TF32), larger differences are accepted."""


def build_subject(trial: Trial) -> nn.Module:
    """Build a trial's model, which is a pairing or a reference model.

    An encoder with a fixed image size is built for the trial's size, unless the pairing sets `image_size`.

    Raises:
        ZooError: the pairing cannot be built.
        ConfigError: the factory of the reference model cannot be imported, raises an exception, or does not return a module.
    """
    subject = trial.subject
    if not isinstance(subject, Reference):
        return build_pairing(replace(subject, image_size=subject.image_size or (trial.height, trial.width)))
    module_name, _, name = subject.factory.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), name)(**subject.options)
    except Exception as cause:
        raise ConfigError(
            f"The reference model {subject.name!r} could not be built with {subject.factory}(**{dict(subject.options)!r}): "
            f"{type(cause).__name__}: {cause}."
        ) from cause
    if not isinstance(model, nn.Module):
        raise ConfigError(f"The reference model {subject.name!r}: {subject.factory} must return an nn.Module; found {model!r}.")
    return model


def check_runtime(runtime: str, device: torch.device) -> None:
    """Raise an error if a runtime cannot be used on a device.

    Raises:
        ConfigError: the runtime is not installed, or does not support the device.
    """
    reason = why_not(_way(runtime, "float32").runtime, "float32", device)
    if reason:
        raise ConfigError(f"runtime {runtime!r} cannot be used here: {reason}.")


def make_step(model: nn.Module, trial: Trial, device: torch.device) -> Step:
    """Move the model to the device and return the step that the trial measures.

    Inference is a forward pass under `torch.inference_mode`. If the runtime is not "eager", the first call converts the model
    to a function that computes in the runtime (a `Program`), and compares its output with the model's. A training step consists
    of the forward pass, the loss (binary cross-entropy for one class, else cross-entropy), the backward pass, and a step of
    AdamW. With "bfloat16", the forward pass and the loss run under autocast. The memory format "channels_last" applies to the
    weights and the input.
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
        return _Inference(model.eval(), image, trial)
    labels = label_batch(batch=trial.batch, classes=trial.classes, height=trial.height, width=trial.width).to(device)
    model = model.train()
    return _training_step(_compile(model) if trial.runtime == "compile" else model, image, labels, trial.dtype)


def _compile(model: nn.Module) -> nn.Module:
    compiled = torch.compile(model, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


class _Inference:
    """A forward pass in a trial's runtime. If the runtime is not "eager", the first call converts the model for it."""

    def __init__(self, model: nn.Module, image: Tensor, trial: Trial) -> None:
        self._model: nn.Module | None = model
        self._image = image
        self._trial = trial
        self._program = original_program(model, trial.dtype) if trial.runtime == "eager" else None

    def __call__(self) -> Tensor:
        if self._program is None:
            assert self._model is not None
            self._program = _make_program(self._model, self._image, self._trial)
            self._model = None
        return self._program(self._image)


def _make_program(model: nn.Module, image: Tensor, trial: Trial) -> Program:
    """Convert the model to a function that runs in the trial's runtime. Raise an error if its output is too inaccurate."""
    reference = reference_of(model, image, TOLERANCE, trial.dtype)
    if trial.runtime in ("compile", "cudagraphs"):  # the model itself, in the trial's memory format
        is_recorded = trial.runtime == "cudagraphs"
        program = recorded_program(model, image, trial.dtype) if is_recorded else original_program(_compile(model), trial.dtype)
        check_output(program, image, reference)
        return program
    return checked_program(model, image, reference, _way(trial.runtime, trial.dtype))


def _way(runtime: str, precision: str) -> Way:
    """Return the graph passes and the runtime that a name in the configuration, such as "deploy-compile", stands for."""
    passes = tuple(PASSES) if runtime.startswith("deploy") else ()
    return Way(runtime=runtime.removeprefix("deploy").removeprefix("-") or "eager", precision=precision, passes=passes)


def _training_step(model: nn.Module, image: Tensor, labels: Tensor, dtype: str) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss_of = F.binary_cross_entropy_with_logits if labels.is_floating_point() else F.cross_entropy

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(image, dtype):
            logits = model(image)
            each = logits if isinstance(logits, tuple) else (logits,)  # in a tuple, auxiliary logits follow the main ones
            loss = torch.stack([loss_of(one, labels) for one in each]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step
