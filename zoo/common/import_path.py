"""Import an object by its path, as a configuration names it: `package.module.Name`, or `file.py:Name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo.common.foreign_code import plugin_code
from zoo.common.regular_files import check_regular
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError, PluginError, ZooError

__all__ = ["code_digest", "import_object", "is_import_path", "load_file", "make_absolute", "source_file"]

FILE_SUFFIX = ".py"


def is_import_path(text: str) -> bool:
    """Return whether text has the form of an object's import path: a module or a file, followed by the object's name."""
    module, name = _split(text)
    return bool(module) and name.isidentifier()


def make_absolute(path: str, base: Path) -> str:
    """Return an import path, with the folder `base` put before the path of its file.

    An import path without a file (`package.module.Name`), or with a file whose path is absolute, is returned unchanged.
    """
    module, name = _split(path)
    return f"{base / module}:{name}" if module.endswith(FILE_SUFFIX) else path


def source_file(path: str) -> Path | None:
    """Return the file that an import path names (`file.py:Name`); None if it names an object of an installed package."""
    module, _ = _split(path)
    return Path(module) if module.endswith(FILE_SUFFIX) else None


def import_object(path: str) -> Any:
    """Import an object. This runs the code of its module.

    Args:
        path: `package.module.Name` or `package.module:Name` for an object of an installed package, `file.py:Name` for an
            object in a file.

    Raises:
        OptionError: `path` does not have one of these forms, or there is no such module or object.
        PluginError: the file does not exist or is not a Python file, or the module's own code raised an error, which is kept
            as `__cause__`.
    """
    module_name, name = _split(path)
    if not is_import_path(path):
        raise OptionError(f"{path!r} is not the path of a Python object. Use package.module.Name, or file.py:Name.")
    if module_name.endswith(FILE_SUFFIX):
        module = load_file(Path(module_name), f"{path} names a file that")
    else:
        module = _import_module(module_name, path)
    try:
        return getattr(module, name)
    except AttributeError:
        raise OptionError(f"{path}: {module_name} has no {name}.{did_you_mean(name, dir(module))}") from None


def code_digest(path: str) -> str:
    """Return a short hash of an object's source code, so that a change of the code is noticed.

    For an object without Python source, such as compiled code, return the hash of its import path.

    Raises:
        OptionError, PluginError: for the same reasons as in `import_object`.
    """
    found = import_object(path)
    try:
        source = inspect.getsource(found)
    except (OSError, TypeError):
        source = path
    return hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:32]


def load_file(path: Path, subject: str) -> ModuleType:
    """Run a Python file as a module, and return the module. The module's name depends on the file's path.

    Args:
        path: the file.
        subject: the beginning of the error messages, such as "The plugin file my.py".

    Raises:
        PluginError: the file is missing or is not a Python file, or its code raised an error, which is kept as `__cause__`.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        raise PluginError(
            f"{subject} does not exist; paths in a configuration are relative to the folder of the configuration."
        ) from None
    except OSError as cause:
        raise PluginError(f"{subject} cannot be read: {cause.strerror}. Use a Python file.") from cause
    name = f"zoo_plugin_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{subject} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with plugin_code(subject, avoidance="Leave it out of the configuration to do without it."):
            spec.loader.exec_module(module)
    except ZooError:
        sys.modules.pop(name, None)
        raise
    return module


def _split(path: str) -> tuple[str, str]:
    """Split an import path into the path of the module or file and the name of the object in it."""
    module, colon, name = path.rpartition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    return module, name


def _import_module(name: str, path: str) -> ModuleType:
    try:
        with plugin_code(f"Importing {name}", avoidance=f"Leave {path} out to do without it.", unchanged=(ZooError,)):
            return importlib.import_module(name)
    except PluginError as failure:
        cause = failure.__cause__
        if not isinstance(cause, ModuleNotFoundError):
            raise
        missing = str(cause.name)
        if name == missing or name.startswith(f"{missing}."):
            raise OptionError(
                f"{path}: there is no module {missing}. Install the package that has it, or correct the path; for a file, "
                "write file.py:Name."
            ) from cause
        raise OptionError(f"{path} needs {missing}, which is not installed. Try: pip install {missing}") from cause
