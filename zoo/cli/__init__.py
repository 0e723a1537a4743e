"""The command line. Each command has a module, which adds the command to the application."""

from __future__ import annotations

from zoo.cli import (  # noqa: F401 - each module adds its command
    bench,
    calibrate,
    compare,
    data,
    estimate,
    explain,
    export,
    export_results,
    list,  # noqa: A004
    matrix,
    new,
    plugins,
    predict,
    recommend,
    report,
    runs,
    schema,
    search,
    show,
    table,
    train,
)
from zoo.cli.application import app, main

__all__ = ["app", "main"]
