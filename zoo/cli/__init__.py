"""The command line: a module for each command, which it adds to one application."""

from __future__ import annotations

from zoo.cli import (  # noqa: F401 - each adds its command
    bench,
    compare,
    data,
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
    show,
    table,
    train,
)
from zoo.cli.application import app, main

__all__ = ["app", "main"]
