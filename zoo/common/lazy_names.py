"""Import a module's public names on first use, from the stub that lists them for type checkers."""

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
    """Return a module's `__getattr__` and `__all__`, by the lines `from package.module import name as name` of its stub.

    Each name is so written once. A library does the same (lazy_loader), for packages and relative imports alone.

    Args:
        module: the module's `__name__`.
        file: its `__file__`; the stub stands beside it, with the suffix `.pyi`.
    """
    homes = {name: home for home, name in IMPORT.findall(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}; it has: {', '.join(sorted(homes))}")
        home = importlib.import_module(homes[name])
        # a submodule may be imported just now, which makes it an attribute of the package
        value = importlib.import_module(f"{module}.{name}") if homes[name] == module else getattr(home, name)
        setattr(sys.modules[module], name, value)
        return value

    return get, sorted(homes)
