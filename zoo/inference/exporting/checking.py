"""Compare the output of an exported file with the model's, by running the file as another program would."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.data.value_ranges import ValueRange
from zoo.inference.exporting.formats import Draft, program_of
from zoo.inference.exporting.report import Check
from zoo.inference.exporting.tracing import Shape
from zoo.inference.reference import relative_error

__all__ = ["check_file", "check_shapes", "random_pixels"]

UNIT = 32


def check_shapes(draft: Draft, multiple: int, untried: Sequence[Shape] = ()) -> tuple[Shape, ...]:
    """Return the image shapes that a file is checked with.

    If the file takes shapes other than the one used for the export, it is checked with such shapes.

    A file for all sizes is checked with four sizes. The sides of the first are multiples of the strides, and those of the
    second are not. The third is so low, and the fourth so narrow, that its map at the coarsest stride is only one pixel high or
    wide. The shapes in `untried` are added (see `Written`).
    """
    if draft.size is None:
        unit = math.lcm(multiple, UNIT) if multiple <= UNIT else multiple
        sizes = [(3 * unit, 4 * unit), (2 * unit + 11, 4 * unit + 5), (unit // 2 + 1, 9 * unit + 1), (5 * unit + 3, 3)]
        shapes = [(batch, draft.channels, *size) for batch, size in zip((1, 2, 1, 2), sizes, strict=True)]
    else:
        shapes = [(batch, draft.channels, *draft.size) for batch in ((1, 2) if draft.open_batch else (1,))]
    return tuple(dict.fromkeys([*shapes, *untried]))


def check_file(model: nn.Module, draft: Draft, shapes: Sequence[Shape]) -> tuple[Check, ...]:
    """Run the exported file and the model on random images of these shapes, and return how much their outputs differ.

    Shapes after the first are left out if the model itself refuses them.

    Raises:
        Exception: any error that the file's runtime raises, or that the model raises for the first shape.
    """
    generator = torch.Generator().manual_seed(0)
    program = program_of(draft.form, draft.path)
    checks = []
    for index, shape in enumerate(shapes):
        image = random_pixels(shape, draft.value_range, generator)
        try:
            with torch.inference_mode():
                expected = model(image)
        except (RuntimeError, ValueError):
            if index == 0:
                raise
            continue  # some decoders refuse the smallest images
        checks.append(_check(program(image), expected, shape))
    return tuple(checks)


def random_pixels(shape: Shape, value_range: ValueRange | None, generator: torch.Generator) -> Tensor:
    """Return random images (N, C, H, W) whose values fill the range of each channel. None stands for the range 0 to 1."""
    image = torch.rand(*shape, generator=generator)
    if value_range is None:
        return image
    low, high = torch.tensor(value_range).T.view(2, 1, -1, 1, 1)
    scaled: Tensor = low + (high - low) * image
    return scaled


def _check(output: Tensor, expected: Tensor, shape: Shape) -> Check:
    absolute = float((output - expected).abs().max()) if output.shape == expected.shape else math.inf
    return Check(shape=shape, absolute=absolute, relative=relative_error(output, expected))
