"""Export a model to a file for other programs, and compare the file's output with the model's before it is kept."""

from zoo.inference.exporting.exported import export
from zoo.inference.exporting.formats import FORMATS
from zoo.inference.exporting.report import Check, ExportReport

__all__ = ["FORMATS", "Check", "ExportReport", "export"]
