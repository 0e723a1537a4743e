"""A model as a file for other programs, made for images of every size, run and compared before it is kept."""

from zoo.inference.exporting.exported import export
from zoo.inference.exporting.formats import FORMATS
from zoo.inference.exporting.report import Check, ExportReport

__all__ = ["FORMATS", "Check", "ExportReport", "export"]
