"""The report: a self-contained HTML page, on which users can sort, filter, plot and print a table of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.common.rendering import write_whole
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.benchmark.table.table import Table

__all__ = ["report_html", "write_report"]


def write_report(table: Table, output: Path) -> None:
    """Write the report on a table to an HTML file. An existing file is replaced only after the new page is complete.

    Raises:
        OptionError: plotly is not installed, or the file cannot be written.
    """
    write_whole(output, report_html(table))


def report_html(table: Table) -> str:
    """Return the report on a table as HTML text.

    Raises:
        OptionError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as cause:
        raise OptionError(
            "The report draws its plots with plotly, which is not installed: pip install 'segmentation-zoo[report]'."
        ) from cause
    from zoo.benchmark.report.page import render_page

    return render_page(table, plotly=get_plotlyjs())
