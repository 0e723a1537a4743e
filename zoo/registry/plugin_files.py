"""Run the Python files that a configuration or the option `--plugin` names. They register encoders or decoders."""

from __future__ import annotations

from pathlib import Path

from zoo.common.import_path import load_file
from zoo.registry.registry import Kind, default_registry

__all__ = ["load_plugin_file"]


def load_plugin_file(path: Path) -> frozenset[tuple[Kind, str]]:
    """Run a Python file that registers encoders or decoders.

    If the file raises an error, everything that it registered is removed again.

    Returns:
        The kind and the name of each encoder and decoder that the file registered.

    Raises:
        PluginError: the file is missing or is not a Python file, or it raised an error, which is kept as `__cause__`.
    """
    with default_registry().whole_or_nothing() as registered:
        load_file(path, f"The plugin file {path}")
    return frozenset(registered)
