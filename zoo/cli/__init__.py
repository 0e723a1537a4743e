"""The command line: a module for each command, which it adds to one application."""

from __future__ import annotations

from zoo.cli import (  # noqa: F401 - each adds its commands
    bench,
    compare,
    explain,
    export,
    export_results,
    listing,
    matrix,
    new,
    predict,
    recommend,
    report,
    runs,
    schema,
    table,
    train,
)
from zoo.cli.application import app, main

__all__ = ["app", "main"]
