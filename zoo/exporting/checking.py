"""A written file run as another program would run it, beside the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.deployment.reference import relative_error
from zoo.exporting.formats import Draft, program_of
from zoo.exporting.report import Check
from zoo.sizes import Size

__all__ = ["checked", "shapes_for"]

UNIT = 32


def shapes_for(size: Size | None, *, open_batch: bool, multiple: int, channels: int) -> list[tuple[int, int, int, int]]:
    """Return what a file is tried with: none of the shapes that it was exported with, where it takes others.

    Of the sizes one is of whole multiples, one of none, and one ends in a single place in height and in many in width.
    """
    if size is None:
        unit = math.lcm(multiple, UNIT) if multiple <= UNIT else multiple
        sizes = [(3 * unit, 4 * unit), (2 * unit + 11, 4 * unit + 5), (unit // 2 + 1, 9 * unit + 1)]
        return [(batch if open_batch else 1, channels, *each) for batch, each in zip((1, 2, 1), sizes, strict=True)]
    return [(batch, channels, *size) for batch in ((1, 2) if open_batch else (1,))]


def checked(model: nn.Module, draft: Draft, multiple: int) -> tuple[Check, ...]:
    """Return the errors of a file, for noise.

    Raises:
        Exception: whatever the runtime raises for a file or a size that it cannot run.
    """
    shapes = shapes_for(draft.size, open_batch=draft.open_batch, multiple=multiple, channels=draft.channels)
    generator = torch.Generator().manual_seed(0)
    program = program_of(draft.form, draft.path)
    return tuple(_check(model, program(image), image) for image in (torch.rand(*each, generator=generator) for each in shapes))


def _check(model: nn.Module, found: Tensor, image: Tensor) -> Check:
    with torch.inference_mode():
        expected: Tensor = model(image)
    absolute = float((found - expected).abs().max()) if found.shape == expected.shape else math.inf
    return Check(shape=tuple(image.shape), absolute=absolute, relative=relative_error(found, expected))
