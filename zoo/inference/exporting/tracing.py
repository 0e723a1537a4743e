"""Trace a model with `torch.export`, for all image sizes or for one."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
from collections.abc import Iterator
from types import CodeType
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_settings
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from zoo.registry.image_sizes import Size

__all__ = ["Shape", "trace"]

Shape: TypeAlias = tuple[int, int, int, int]

IMAGES = 3
OPEN_SIZE = (347, 427)
"""The size (H, W) of the example image for a graph that takes all sizes.

No usual stride, patch or window divides it, and it is larger than usual windows, so the traced graph is general.
"""


LENGTHS = (1, 17, 33, 64, 99, 160, 225, 289, 416, 515)
"""The heights and widths among which zoo searches for shapes that violate an assumption of PyTorch's exporter."""


def trace(model: nn.Module, channels: int, *, size: Size | None, open_batch: bool) -> tuple[ExportedProgram, tuple[Shape, ...]]:
    """Return the graph of a model in evaluation mode, and shapes that violate assumptions made while tracing.

    The graph must be checked with images of these shapes. For a graph without variable axes, there are no such shapes.

    Args:
        model: a module that maps (N, channels, H, W) to one tensor.
        channels: the number of channels of the images.
        size: the only H and W that the graph takes; None for a graph that takes all.
        open_batch: whether the graph takes any number of images at once, or only one image.

    Raises:
        Exception: any error that `torch.export` raises for a model that it cannot trace.
    """
    shape = (IMAGES if open_batch else 1, channels, *(size or OPEN_SIZE))
    axes = ((0,) if open_batch else ()) + ((2, 3) if size is None else ())
    (name,) = inspect.signature(model.forward).parameters
    with torch.no_grad(), _keep_sizes_open(), _round_up_exactly():
        program = torch.export.export(
            model, (torch.rand(shape),), dynamic_shapes={name: dict.fromkeys(axes, Dim.DYNAMIC)} if axes else None, strict=False
        )
    guards = _remove_guards(program) if axes else []
    return program, _find_counterexamples(guards, shape, axes, name)


def _keep_sizes_open() -> contextlib.AbstractContextManager[object]:
    """Prevent PyTorch from treating a variable size of 0 or 1 as fixed, if this version has a setting for it."""
    if hasattr(shape_settings, "backed_size_oblivious"):
        return shape_settings.patch(backed_size_oblivious=True)  # type: ignore[no-any-return, attr-defined]
    return contextlib.nullcontext()


@contextlib.contextmanager
def _round_up_exactly() -> Iterator[None]:
    """Let PyTorch compute `math.ceil(size / stride)` of a variable size with integers. It cannot simplify float expressions.

    TensorFlow's "same" padding rounds in this way. With floats, the expressions of the sizes grow with each layer, and tracing
    takes minutes or fails.
    """
    plain = vars(CeilToInt)["eval"]

    def evaluate(kind: type, number: Any) -> Any:
        if isinstance(number, IntTrueDiv):
            length, stride = number.args
            return -FloorDiv(-length, stride)
        return plain.__func__(kind, number)

    CeilToInt.eval = classmethod(evaluate)  # type: ignore[assignment]
    try:
        yield
    finally:
        CeilToInt.eval = plain  # type: ignore[method-assign]


def _remove_guards(program: ExportedProgram) -> list[str]:
    """Remove the guards of a graph, so that it takes all sizes, and return them.

    Guards are PyTorch's assumptions about the example. Most of them concern the memory layout, such as that no axis has
    length 1. A loaded graph refuses images that violate a guard, even if its output would be right. Without guards, the
    graph must be checked with such images.
    """
    guards = list(getattr(program, "_guards_code", ()))
    if guards:
        program._guards_code = []
    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    return guards


def _find_counterexamples(guards: list[str], shape: Shape, axes: tuple[int, ...], name: str) -> tuple[Shape, ...]:
    """Return, for each guard, a small shape that violates it. A guard that no searched shape violates is ignored."""
    options = [[length] if axis not in axes else [1, 2] if axis == 0 else LENGTHS for axis, length in enumerate(shape)]
    candidates: list[Shape] = sorted(itertools.product(*options), key=math.prod)  # type: ignore[arg-type]
    shapes: list[Shape] = []
    for guard in guards:
        code = compile(guard, "guard", "eval")
        if all(_holds(code, name, each) for each in shapes):
            shapes += [each for each in candidates if not _holds(code, name, each)][:1]
    return tuple(shapes)


def _holds(guard: CodeType, name: str, shape: tuple[int, ...]) -> bool:
    return bool(eval(guard, {"torch": torch, "math": math, "L": {name: torch.empty(shape, device="meta")}}))
