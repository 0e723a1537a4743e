"""Python files that register encoders or decoders, as a configuration names them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from zoo.common.foreign_code import plugin_code
from zoo.common.regular_files import check_regular
from zoo.errors import PluginError, ZooError
from zoo.registry.registry import Kind, default_registry

__all__ = ["load_plugin_file"]


def load_plugin_file(path: Path) -> frozenset[tuple[Kind, str]]:
    """Run a Python file that registers encoders or decoders, as a configuration's `plugins:` names it.

    A file that raises leaves nothing registered.

    Returns:
        What it registered: kinds and names.

    Raises:
        PluginError: the file is missing, or raised; the cause is kept.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        raise PluginError(
            f"The plugin file {path} does not exist; paths in a configuration are relative to its own folder."
        ) from None
    except OSError as cause:
        raise PluginError(f"The plugin file {path} cannot be read: {cause.strerror}. Give a Python file.") from cause
    name = f"zoo_plugin_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"The plugin file {path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with (
            default_registry().whole_or_nothing() as registered,
            plugin_code(f"The plugin file {path}", avoidance="Leave it out of the configuration's plugins: to do without it."),
        ):
            spec.loader.exec_module(module)
    except ZooError:
        sys.modules.pop(name, None)
        raise
    return frozenset(registered)
