"""Write the distribution of a new plugin from templates: complete, installable, and with tests."""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from zoo.common.format_names import format_names
from zoo.common.regular_files import is_folder
from zoo.errors import OptionError
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.hookspecs import API_VERSION
from zoo.registry.registry import MODULE, Kind, default_registry

__all__ = ["write_distribution"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")

_BOTH = {
    "pyproject.toml": "pyproject.toml",
    ".gitignore": "gitignore",
    "README.md": "{kind}/README.md",
    "src/{module}/__init__.py": "{kind}/hooks.py",
    "src/{module}/{kind}.py": "{kind}/{kind}.py",
    "tests/test_{module}.py": "{kind}/test.py",
}
TEMPLATES: dict[Kind, dict[str, str]] = {
    "decoder": _BOTH,
    "encoder": {**_BOTH, "src/{module}/weights.py": "{kind}/weights.py"},
}
"""For each kind of plugin, a mapping from each file of the distribution to the file's template."""

DEPENDENCIES: dict[Kind, tuple[str, ...]] = {"decoder": ("torch>=2.9",), "encoder": ("safetensors>=0.4.3", "torch>=2.9")}
"""The packages that the written code requires in addition to zoo, with the same lower bounds as in zoo itself."""


def write_distribution(kind: Kind, name: str, folder: Path) -> tuple[Path, ...]:
    """Write a distribution with one encoder or decoder to a new or empty folder. If this fails, remove everything again.

    Args:
        kind: "decoder" or "encoder".
        name: the name of the distribution, of its plugin and of its encoder or decoder: lower case words, joined by hyphens.
        folder: the folder to write to. The folder and its parents are created if they do not exist.

    Returns:
        The paths of the files, sorted.

    Raises:
        OptionError: the name cannot be used or is taken, or the folder is not empty or cannot be written.
    """
    module = _module_of(kind, name)
    facts = {
        "name": name,
        "module": module,
        "kind": kind,
        "class": _class_of(kind, name),
        "api": str(API_VERSION),
        "dependencies": ", ".join(f'"{line}"' for line in (_require_zoo(), *DEPENDENCIES[kind])),
    }
    texts = {
        folder / path.format(kind=kind, module=module): _fill(template.format(kind=kind), facts)
        for path, template in TEMPLATES[kind].items()
    }
    try:
        with _new_or_empty(folder):
            for path, text in texts.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise OptionError(
            f"The {kind} {name!r} cannot be written to {folder}: {cause.strerror}. Choose another folder."
        ) from cause
    return tuple(sorted(texts))


def _module_of(kind: Kind, name: str) -> str:
    """Return the name of the Python package of a new plugin. If the plugin's name cannot be used, raise an OptionError."""
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"A new {kind}'s name must have lower case letters and digits, in words joined by single hyphens, and begin with a "
            f"letter, such as 'my-fpn'; found {name!r}."
        )
    registry = default_registry()
    ids = [id for id in (*registry.ids("encoder"), *registry.ids("decoder")) if id.rpartition(":")[2] == name]
    if ids:
        raise OptionError(f"The name {name!r} is taken by {', '.join(ids)}. Choose another name for the new {kind}.")
    plugins = [str(plugin) for plugin in registry.found if plugin.name == name]
    if plugins or name in (LOCAL, MODULE):
        owner = plugins[0] if plugins else f"zoo itself, for the ids that begin with '{name}:'"
        raise OptionError(f"The name {name!r} is taken by {owner}. Choose another name for the new {kind}.")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or _is_importable(module):
        owner = "a Python keyword" if keyword.iskeyword(module) else "a module that is installed already"
        raise OptionError(
            f"The name {name!r} cannot be used: its package would be {module!r}, which is {owner}. Choose another name."
        )
    return module


def _is_importable(module: str) -> bool:
    """Return whether `import module` would find code. A folder without code, which Python can import too, does not count."""
    if module in sys.stdlib_module_names:
        return True
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _class_of(kind: Kind, name: str) -> str:
    words = [word.capitalize() for word in name.split("-")]
    return "".join(words if words[-1] == kind.capitalize() else [*words, kind.capitalize()])


def _require_zoo() -> str:
    return f"{OWN_DISTRIBUTION}>={version(OWN_DISTRIBUTION).partition('+')[0]}"  # a bound must not have a local part


def _fill(template: str, facts: dict[str, str]) -> str:
    text = files("zoo.cli.new").joinpath("templates", f"{template}.template").read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: facts[match[1]], text)


@contextmanager
def _new_or_empty(folder: Path) -> Iterator[None]:
    """Create a folder, or use an empty folder. If the `with` block raises an error, remove everything again."""
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    if os.path.lexists(folder):
        if not is_folder(folder):
            raise OptionError(
                f"{folder} is a file or a broken link, not a new or empty folder. Choose another folder with --output."
            )
        if names := sorted(path.name for path in folder.iterdir()):
            held = format_names(names, 3)
            raise OptionError(f"{folder} is not empty: it contains {held}. Choose a new or empty folder with --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _remove_written(folder, made)
        raise


def _remove_written(folder: Path, made: list[Path]) -> None:
    import shutil

    with suppress(OSError):  # the error that led here is the one to report
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):
        for path in made:
            path.rmdir()
