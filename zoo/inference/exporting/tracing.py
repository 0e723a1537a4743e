"""A model as `torch.export` reads it, with open sizes or for one size."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
from types import CodeType
from typing import TypeAlias

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_settings
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from zoo.registry.image_sizes import Size

__all__ = ["Shape", "traced"]

Shape: TypeAlias = tuple[int, int, int, int]

IMAGES = 3
OPEN_SIZE = (347, 427)
"""An example that no usual stride, patch or window divides, and larger than windows: what is special in it holds for all."""


LENGTHS = (1, 17, 33, 64, 99, 160, 225, 289, 416, 515)
"""Heights and widths among which one is looked for that an assumption does not hold for."""


def traced(
    model: nn.Module, channels: int, *, size: Size | None, open_batch: bool
) -> tuple[ExportedProgram, tuple[Shape, ...]]:
    """Return the graph of a model in evaluation mode, and shapes that it is yet to be tried with, if it is an open one.

    Args:
        model: (N, channels, H, W) -> one tensor.
        channels: of its images.
        size: H and W that the graph is for; None for all.
        open_batch: whether it is for every N, or for one image.

    Raises:
        Exception: whatever `torch.export` raises for a model that it cannot read.
    """
    shape = (IMAGES if open_batch else 1, channels, *(size or OPEN_SIZE))
    axes = ((0,) if open_batch else ()) + ((2, 3) if size is None else ())
    (name,) = inspect.signature(model.forward).parameters
    with torch.no_grad(), _layouts_left_open():
        program = torch.export.export(
            model, (torch.rand(shape),), dynamic_shapes={name: dict.fromkeys(axes, Dim.DYNAMIC)} if axes else None, strict=False
        )
    guards = _taken_guards(program) if axes else []
    return program, _breaking(guards, shape, axes, name)


def _layouts_left_open() -> contextlib.AbstractContextManager[object]:
    """Let PyTorch assume nothing of an open size because it might be 0 or 1, where it can."""
    if hasattr(shape_settings, "backed_size_oblivious"):
        return shape_settings.patch(backed_size_oblivious=True)  # type: ignore[no-any-return, attr-defined]
    return contextlib.nullcontext()


def _taken_guards(program: ExportedProgram) -> list[str]:
    """Let a graph take all sizes, and return what it was made under.

    PyTorch notes what it took for granted of the example, most of it in how tensors lie in memory, such as that none has a
    single place, and a loaded graph refuses images for which that does not hold. Whether they come out right is found by
    running some.
    """
    guards = list(getattr(program, "_guards_code", ()))
    if guards:
        program._guards_code = []
    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    return guards


def _breaking(guards: list[str], shape: Shape, axes: tuple[int, ...], name: str) -> tuple[Shape, ...]:
    """Return shapes such that no guard holds for all of them, small ones first, where there are such among those looked at."""
    options = [[length] if axis not in axes else [1, 2] if axis == 0 else LENGTHS for axis, length in enumerate(shape)]
    candidates: list[Shape] = sorted(itertools.product(*options), key=math.prod)  # type: ignore[arg-type]
    found: list[Shape] = []
    for guard in guards:
        code = compile(guard, "guard", "eval")
        if all(_holds(code, name, each) for each in found):
            found += [each for each in candidates if not _holds(code, name, each)][:1]
    return tuple(found)


def _holds(guard: CodeType, name: str, shape: tuple[int, ...]) -> bool:
    return bool(eval(guard, {"torch": torch, "math": math, "L": {name: torch.empty(shape, device="meta")}}))
