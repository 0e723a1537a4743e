"""One way of running a model, made and compared with the model before anyone uses it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.inference.deployment.graph import capture
from zoo.inference.deployment.passes import apply_passes
from zoo.inference.reference import Reference, relative_error, why_not_comparable
from zoo.inference.runtimes import Program, make_program, why_not

__all__ = ["Way", "check_output", "checked_program", "describe_failure"]


MAX_CHARACTERS = 300
"""The most characters of another library's message that are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model is run: by which of `RUNTIMES`, in what precision, after which passes over its graph."""

    runtime: str
    precision: str = "float32"
    passes: tuple[str, ...] = ()


def checked_program(model: nn.Module, image: Tensor, reference: Reference, way: Way) -> Program:
    """Return a function that gives what a model gives, for images of this shape, type and device.

    Raises:
        ZooError: the runtime is not at hand, or its output is not near enough to the reference.
        Exception: whatever PyTorch's exporter or the runtime raises for a model that it cannot run.
    """
    refused = why_not(way.runtime, way.precision, image.device)
    if refused:
        raise ZooError(refused)
    graph = capture(model, image)
    apply_passes(graph, way.passes)
    program = make_program(graph, image, way.runtime, way.precision)
    check_output(program, image, reference)
    return program


def check_output(program: Program, image: Tensor, reference: Reference) -> None:
    """Run a program once and compare its output.

    Raises:
        ZooError: the error is too large, or the reference is NaN or infinite.
    """
    if reason := why_not_comparable(reference.output):
        raise ZooError(reason)
    with torch.inference_mode():
        error = relative_error(program(image), reference.output)
    if not error <= reference.accepted:  # NaN is refused as well
        raise ZooError(f"The output differs by {error:.1e}, and {reference.accepted:.2g} is allowed.")


def describe_failure(cause: Exception) -> str:
    """Return why a model cannot be run in one way, in one line; another library's message may have hundreds."""
    if isinstance(cause, ZooError):
        return str(cause)
    first = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first}"[:MAX_CHARACTERS]
