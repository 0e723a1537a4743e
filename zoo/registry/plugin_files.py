"""Run the Python files that a configuration names as plugins: they register encoders or decoders."""

from __future__ import annotations

from pathlib import Path

from zoo.common.import_path import load_file
from zoo.registry.registry import Kind, default_registry

__all__ = ["load_plugin_file"]


def load_plugin_file(path: Path) -> frozenset[tuple[Kind, str]]:
    """Run a Python file that registers encoders or decoders, as a configuration's `plugins:` names it.

    If the file raises an error, nothing stays registered.

    Returns:
        The kind and the name of each encoder and decoder that it registered.

    Raises:
        PluginError: the file is missing, or raised an error; the cause is kept.
    """
    with default_registry().whole_or_nothing() as registered:
        load_file(path, f"The plugin file {path}")
    return frozenset(registered)
