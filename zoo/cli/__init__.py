"""The command line: each module here adds its commands to one application."""

from __future__ import annotations

from zoo.cli import exports, ids, plans, predicting, report, results, runs, scaffold, schema, tables, training  # noqa: F401 - each adds its commands
from zoo.cli.application import app, main

__all__ = ["app", "main"]
