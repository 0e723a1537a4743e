"""The command line: each module here adds its commands to one application."""

from __future__ import annotations

from zoo.cli import (  # noqa: F401 - each adds its commands
    exporting,
    exports,
    ids,
    plans,
    predicting,
    report,
    results,
    runs,
    scaffold,
    schema,
    tables,
    training,
)
from zoo.cli.application import app, main

__all__ = ["app", "main"]
