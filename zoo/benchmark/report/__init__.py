"""The report: a table as one HTML file that needs nothing from outside, to be sorted, filtered, plotted and printed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.benchmark.row import Table

__all__ = ["report_html", "write_report"]


def write_report(table: Table, output: Path) -> None:
    """Write the page to a file, whole or not at all: what was there before stays until the new page is complete.

    Raises:
        OptionError: plotly is not installed, or the file cannot be written.
    """
    page = report_html(table).encode("utf-8", "replace")
    part = output.parent / f".{output.name}.{os.getpid()}.part"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(page)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    except OSError as cause:
        raise OptionError(f"The report {output} cannot be written: {cause.strerror}. --output PATH names another.") from cause


def report_html(table: Table) -> str:
    """Return the page as text.

    Raises:
        OptionError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as cause:
        raise OptionError(
            "The report draws its plots with plotly, which is not installed: pip install 'segmentation-zoo[report]'."
        ) from cause
    from zoo.benchmark.report.page import page_of

    return page_of(table, plotly=get_plotlyjs())
