"""The report: a self-contained HTML page, on which users can sort, filter, plot and print a table of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.common.rendering import write_whole
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.benchmark.table.table import Table

__all__ = ["report_html", "write_report"]


def write_report(table: Table, output: Path, *, plots: bool = True) -> None:
    """Write the report on a table to an HTML file. An existing file is replaced only after the new page is complete.

    Args:
        table: the results to show.
        output: the file.
        plots: whether the page has plots. They take five megabytes.

    Raises:
        OptionError: plotly is not installed, or the file cannot be written.
    """
    write_whole(output, report_html(table, plots=plots))


def report_html(table: Table, *, plots: bool = True) -> str:
    """Return the report on a table as HTML text. Without `plots`, it does not need plotly.

    Raises:
        OptionError: plotly is not installed.
    """
    from zoo.benchmark.report.page import render_page

    if not plots:
        return render_page(table, plotly="")
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as cause:
        raise OptionError(
            "The report draws its plots with plotly, which is not installed: pip install 'segmentation-zoo[report]'."
        ) from cause
    return render_page(table, plotly=get_plotlyjs())
