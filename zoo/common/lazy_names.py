"""Import the public names of a module on first use. The module's stub, which type checkers read, lists the names."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["lazy_names"]

IMPORT = re.compile(r"^from (\S+) import (\w+) as \w+$", re.MULTILINE)


def lazy_names(module: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return a module's `__getattr__` and `__all__`, made from the lines `from module import name as name` of its stub.

    So each name is listed only once, in the stub. The library lazy_loader cannot be used here, since it supports only packages
    and relative imports.

    Args:
        module: the module's `__name__`.
        file: the module's `__file__`. The stub has the same path, but with the suffix `.pyi`.
    """
    homes = {name: home for home, name in IMPORT.findall(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}; it has: {', '.join(sorted(homes))}")
        home = importlib.import_module(homes[name])
        # A submodule of the package may not be imported yet. Importing it also makes it an attribute of the package.
        value = importlib.import_module(f"{module}.{name}") if homes[name] == module else getattr(home, name)
        setattr(sys.modules[module], name, value)
        return value

    return get, sorted(homes)
