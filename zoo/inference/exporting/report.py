"""Report how a model was exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.common.grid import Grid, GridRow, Heading, Line, Part, to_text
from zoo.data.value_ranges import ValueRange, format_range
from zoo.registry.image_sizes import Size

__all__ = ["Check", "ExportReport", "checks_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The difference between a file's output and the model's, for one batch of random images.

    Attributes:
        shape: the shape of the images, (N, C, H, W).
        absolute: max|a - b|, where a is the file's output and b is the model's.
        relative: max|a - b| / max|b|.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """The file of an exported model, and how close its output is to the model's.

    Attributes:
        path: the file.
        format: "onnx", "torch-export" or "openvino".
        size: the only H and W that the file takes; None if it takes all.
        is_batch_open: whether the file takes any number of images at once, or only one image.
        normalizes: whether the file takes pixels and normalizes them itself.
        value_range: for each channel, the pixel values that the file scales to 0 and 1; None if the file takes pixels in 0 to
            1 or normalized images.
        opset: the ONNX opset, also for OpenVINO, whose files are converted from ONNX; None for torch.export.
        num_bytes: the size of the file in bytes, including the separate file of weights if there is one.
        tolerance: the accepted relative error.
        checks: how much the file's output differs from the model's, for images of several shapes. If possible, none of these
            shapes is the one used for the export.
        notes: the reason why the file takes only one size, and other differences from the request.
    """

    path: Path
    format: str
    size: Size | None
    is_batch_open: bool
    normalizes: bool
    opset: int | None
    num_bytes: int
    tolerance: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    value_range: ValueRange | None = None

    def __str__(self) -> str:
        return to_text(self.parts(), width=120).rstrip()

    def parts(self) -> tuple[Part, ...]:
        """Return the report as lines and a table."""
        kind = self.format if self.opset is None else f"{self.format}, opset {self.opset}"
        size = "any height and width" if self.size is None else f"{self.size[0]}x{self.size[1]} only"
        batch = "any batch" if self.is_batch_open else "one image"
        pixels = "pixels in 0 to 1" if self.normalizes else "normalized images, like the model"
        if self.value_range is not None:
            pixels = f"pixels in the units of the training images, whose range is {format_range(self.value_range)}"
        return (
            Line(text=f"{self.path}: {kind}, {self.num_bytes / 1e6:.1f} MB", kind="title", style="bold"),
            Line(text=f"The file takes {batch}, {size}; {pixels}."),
            *(Line(text=note) for note in self.notes),
            checks_table(self.checks),
            Line(text=f"All errors are within {self.tolerance:g} of the model's largest value."),
        )


def checks_table(checks: tuple[Check, ...]) -> Grid:
    """Return a table of the checks: how much the outputs differ for each image shape."""
    numbers = (Heading(text=text, is_number=True) for text in ("maximum error", "relative to the largest value"))
    rows = (("x".join(map(str, check.shape)), f"{check.absolute:.1e}", f"{check.relative:.1e}") for check in checks)
    return Grid(headings=(Heading(text="images"), *numbers), sections=(tuple(GridRow(cells=cells) for cells in rows),))
