"""A written file run as another program would run it, beside the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.inference.exporting.formats import Draft, program_of
from zoo.inference.exporting.report import Check
from zoo.inference.exporting.tracing import Shape
from zoo.inference.reference import relative_error

__all__ = ["checked", "shapes_for"]

UNIT = 32


def shapes_for(draft: Draft, multiple: int, untried: Sequence[Shape] = ()) -> tuple[Shape, ...]:
    """Return what a file is tried with: none of the shapes that it was exported with, where it takes others.

    Of the sizes one is of whole multiples, one of none, one ends in a single place in height and in many in width, and one
    the other way round. `untried` comes after them.
    """
    if draft.size is None:
        unit = math.lcm(multiple, UNIT) if multiple <= UNIT else multiple
        sizes = [(3 * unit, 4 * unit), (2 * unit + 11, 4 * unit + 5), (unit // 2 + 1, 9 * unit + 1), (5 * unit + 3, 3)]
        shapes = [(batch, draft.channels, *size) for batch, size in zip((1, 2, 1, 2), sizes, strict=True)]
    else:
        shapes = [(batch, draft.channels, *draft.size) for batch in ((1, 2) if draft.open_batch else (1,))]
    return tuple(dict.fromkeys([*shapes, *untried]))


def checked(model: nn.Module, draft: Draft, shapes: Sequence[Shape]) -> tuple[Check, ...]:
    """Return a file's errors, for noise of these shapes.

    Raises:
        Exception: whatever the runtime raises for a file or a size that it cannot run.
    """
    generator = torch.Generator().manual_seed(0)
    program = program_of(draft.form, draft.path)
    found = []
    for index, shape in enumerate(shapes):
        image = torch.rand(*shape, generator=generator)
        try:
            with torch.inference_mode():
                expected = model(image)
        except (RuntimeError, ValueError):
            if index == 0:
                raise
            continue  # some decoders cannot do with the smallest images
        found.append(_check(program(image), expected, shape))
    return tuple(found)


def _check(found: Tensor, expected: Tensor, shape: Shape) -> Check:
    absolute = float((found - expected).abs().max()) if found.shape == expected.shape else math.inf
    return Check(shape=shape, absolute=absolute, relative=relative_error(found, expected))
