"""What exporting a model came to, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.common.rendering import plain_text
from zoo.registry.image_sizes import Size

__all__ = ["Check", "ExportReport", "checks_view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A file's output beside the model's, for one image or batch of noise.

    Attributes:
        shape: of the images, (N, C, H, W).
        absolute: max|a - b|.
        relative: max|a - b| / max|b|, where b is the model's.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written, and how near it is to the model.

    Attributes:
        path: the file.
        format: "onnx", "torch-export" or "openvino".
        size: the one H and W that it takes; None for all.
        is_batch_open: whether it takes any number of images, or one.
        normalises: whether it takes pixels in 0 to 1, and brings them to what the weights were trained on itself.
        opset: of ONNX, which OpenVINO's files are made from as well.
        num_bytes: of the file, and of the one beside it that holds weights, if there is one.
        tolerance: the relative error that was accepted.
        checks: what it was run with, all of shapes that it was not exported with, where it takes others.
        notes: why it takes one size only, and what else was not done as asked.
    """

    path: Path
    format: str
    size: Size | None
    is_batch_open: bool
    normalises: bool
    opset: int | None
    num_bytes: int
    tolerance: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return plain_text(self.view(), width=120).rstrip()

    def view(self) -> RenderableType:
        """Return the report as something rich can print."""
        made = self.format if self.opset is None else f"{self.format}, opset {self.opset}"
        size = "any height and width" if self.size is None else f"{self.size[0]}x{self.size[1]} only"
        batch = "any batch" if self.is_batch_open else "one image"
        pixels = "pixels in 0 to 1" if self.normalises else "normalised images, as the model does"
        return Group(
            Text(f"{self.path}: {made}, {self.num_bytes / 1e6:.1f} MB", style="bold"),
            Text(f"It takes {batch}, {size}; {pixels}."),
            *map(Text, self.notes),
            checks_view(self.checks),
            Text(f"All are within {self.tolerance:g} of the model's largest value."),
        )


def checks_view(checks: tuple[Check, ...]) -> RenderableType:
    """Return the errors as a table."""
    table = Table(header_style="bold")
    table.add_column("images")
    table.add_column("maximum error", justify="right")
    table.add_column("relative to the largest value", justify="right")
    for check in checks:
        table.add_row("x".join(map(str, check.shape)), f"{check.absolute:.1e}", f"{check.relative:.1e}")
    return table
