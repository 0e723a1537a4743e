"""Choices and defaults that functions and commands share. This module imports little, so that commands start quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "CALIBRATION",
    "DEFAULT_STORE",
    "EXPORT_TIMEOUT",
    "EXPORT_TOLERANCE",
    "SEARCH_STAGE",
    "Existing",
    "Flips",
    "Format",
    "ModelFormat",
    "Precision",
]

DEFAULT_STORE = Path("results/zoo.sqlite")
"""The SQLite file in which measurements are stored."""

CALIBRATION = "zoo calibrate"
"""The name of runs that calibrate a device."""
SEARCH_STAGE = "zoo search, a stage"
"""The name of the runs of a search that measure or train candidates, before the last run measures the best ones precisely."""

EXPORT_TOLERANCE = 1e-4
"""The largest accepted difference between the outputs of an exported file and of its model, relative to the largest logit."""
EXPORT_TIMEOUT = 300.0
"""The time limit for exporting a graph that accepts all image sizes, in seconds."""

Format: TypeAlias = Literal["table", "markdown", "csv", "json"]
"""The formats in which a command can write its answer, a `Document`."""
ModelFormat: TypeAlias = Literal["onnx", "torch-export", "openvino"]
"""The formats to which a model can be exported."""

Flips: TypeAlias = Literal["none", "horizontal", "all"]
"""The mirror images whose predictions are averaged with the prediction of the image itself."""
Precision: TypeAlias = Literal["float32", "bfloat16"]
"""The data type for inference. With bfloat16, the model runs in autocast."""
Existing: TypeAlias = Literal["error", "skip", "replace"]
"""What to do if a mask file already exists."""
