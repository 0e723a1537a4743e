"""Make a program, a function that runs a model in one way. Before its use, its output is compared with the model's."""

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
"""The largest number of characters of another library's message that are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model is run: the runtime (one of `RUNTIMES`), the precision, and the passes applied to its graph."""

    runtime: str
    precision: str = "float32"
    passes: tuple[str, ...] = ()


def checked_program(model: nn.Module, image: Tensor, reference: Reference, way: Way) -> Program:
    """Return a program that runs a model on images of this shape, type and device, if its output is close to the reference.

    Raises:
        ZooError: the runtime is not available, or its output differs too much from the reference.
        Exception: any error that PyTorch's exporter or the runtime raises for a model that it does not support.
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
    """Run a program once and compare its output with the reference.

    Raises:
        ZooError: the output differs too much from the reference, or the reference contains NaN or infinity.
    """
    if reason := why_not_comparable(reference.output):
        raise ZooError(reason)
    with torch.inference_mode():
        error = relative_error(program(image), reference.output)
    if not error <= reference.accepted:  # NaN is refused as well
        raise ZooError(
            f"The output differs from the model's by {error:.1e} of the largest value; at most {reference.accepted:.2g} is "
            "accepted."
        )


def describe_failure(cause: Exception) -> str:
    """Return the message of an error of zoo, or the type and the first line of the message of another library's error."""
    if isinstance(cause, ZooError):
        return str(cause)
    first = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first}"[:MAX_CHARACTERS]
