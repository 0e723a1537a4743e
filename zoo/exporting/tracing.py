"""A model as `torch.export` reads it, with open sizes or for one size."""

from __future__ import annotations

import contextlib
import inspect

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_settings

from zoo.sizes import Size

__all__ = ["traced"]

IMAGES = 3
OPEN_SIZE = (347, 427)
"""An example that no usual stride, patch or window divides, and larger than windows: what is special in it holds for all."""


def traced(model: nn.Module, channels: int, *, size: Size | None, open_batch: bool) -> ExportedProgram:
    """Return the graph of a model in evaluation mode.

    Args:
        model: (N, channels, H, W) -> one tensor.
        channels: of its images.
        size: H and W that the graph is for; None for all.
        open_batch: whether it is for every N, or for one image.

    Raises:
        Exception: whatever `torch.export` raises for a model that it cannot read.
    """
    image = torch.rand(IMAGES if open_batch else 1, channels, *(size or OPEN_SIZE))
    axes = ((0,) if open_batch else ()) + ((2, 3) if size is None else ())
    (name,) = inspect.signature(model.forward).parameters
    with torch.no_grad(), _layouts_left_open():
        program = torch.export.export(
            model, (image,), dynamic_shapes={name: dict.fromkeys(axes, Dim.DYNAMIC)} if axes else None, strict=False
        )
    if axes:
        _drop_guards(program)
    return program


def _layouts_left_open() -> contextlib.AbstractContextManager[object]:
    """Let PyTorch assume nothing of an open size because it might be 0 or 1, where it can."""
    if hasattr(shape_settings, "backed_size_oblivious"):
        return shape_settings.patch(backed_size_oblivious=True)  # type: ignore[no-any-return, attr-defined]
    return contextlib.nullcontext()


def _drop_guards(program: ExportedProgram) -> None:
    """Let a graph take all sizes.

    PyTorch notes what it took for granted of the example in how tensors lie in memory, such as that none has one place
    alone, and a loaded graph refuses other images. Whether they come out right is found by running them.
    """
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    from torch.utils._sympy.numbers import int_oo
    from torch.utils._sympy.value_ranges import ValueRanges

    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
