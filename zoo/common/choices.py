"""Choices and defaults that a function and its command share; it imports little, so that the command line starts quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "DEFAULT_STORE",
    "EXPORT_TIMEOUT",
    "EXPORT_TOLERANCE",
    "Existing",
    "Flips",
    "Format",
    "ModelFormat",
    "Precision",
]

DEFAULT_STORE = Path("results/zoo.sqlite")
"""The file that keeps what was measured."""

EXPORT_TOLERANCE = 1e-4
"""The accepted error of an exported model, relative to the largest logit."""
EXPORT_TIMEOUT = 300.0
"""The seconds for exporting a graph for all sizes."""

Format: TypeAlias = Literal["table", "markdown", "csv", "json"]
"""How a document is written."""
ModelFormat: TypeAlias = Literal["onnx", "torch-export", "openvino"]
"""How a model is exported."""

Flips: TypeAlias = Literal["none", "horizontal", "all"]
"""The mirror images over which a prediction is averaged."""
Precision: TypeAlias = Literal["float32", "bfloat16"]
"""The type in which products are computed."""
Existing: TypeAlias = Literal["error", "skip", "replace"]
"""What happens to masks that already exist."""
