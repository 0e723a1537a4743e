"""Find plugins by their entry points without importing them, and load each plugin in isolation."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.metadata import Distribution, EntryPoint, EntryPoints, distributions
from itertools import chain, combinations
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from zoo.common.foreign_code import plugin_code
from zoo.common.printable import printable
from zoo.common.regular_files import check_regular
from zoo.errors import PluginError, RegistrationError
from zoo.registry import hookspecs
from zoo.registry.hookspecs import API_VERSION, GROUP
from zoo.registry.specs import DecoderSpec, EncoderSpec, Spec, is_factory_path

__all__ = [
    "CANONICAL_GROUP",
    "LOCAL",
    "MODULE",
    "OWN_DISTRIBUTION",
    "FoundPlugin",
    "PluginRecord",
    "are_same",
    "find_plugins",
    "load_plugins",
]

ALLOWED = "ZOO_PLUGINS"
"""The environment variable that lists the third-party plugins, or their distributions, that may be imported. If it is empty, no
third-party plugin may be imported; if it is not set, all may."""
DISABLED = "ZOO_DISABLE_PLUGINS"
"""The environment variable that lists the plugins, or their distributions, that must not be imported."""

OWN_DISTRIBUTION = "segmentation-zoo"
CANONICAL_GROUP = "zoo.canonical"
"""An entry point group of zoo's own distribution. It maps each of zoo's bare ids (ids without `plugin:`) to the module of the
plugin that provides this encoder or decoder. To look up such an id, zoo loads only that plugin."""

LOCAL = "local"
"""The part before the colon in the ids that a script or notebook registers. No plugin may have this name."""

MODULE = "module"
"""The part before the colon in the id that zoo gives to a module that was passed instead of an encoder's id. No plugin may have
this name."""

_Spec = TypeVar("_Spec", EncoderSpec, DecoderSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlugin:
    """A plugin that an installed distribution declares. It is not imported yet.

    Attributes:
        disabled_by: the environment variable that forbids the import of the plugin; "" if none does.
    """

    name: str
    module: str
    distribution: str
    version: str
    entry_point: EntryPoint
    disabled_by: str = ""

    @property
    def is_own(self) -> bool:
        """Whether this project's own distribution ships the plugin."""
        return self.distribution == OWN_DISTRIBUTION

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.distribution} {self.version}, module {self.module})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """The result of loading a plugin: its specs or, if the plugin could not be loaded, the error.

    A disabled plugin is not loaded, so its record has neither specs nor an error.

    Attributes:
        takeovers: a mapping from a library's module name to the path `package.module:name` of the function that converts the
            library's models.
    """

    found: FoundPlugin
    encoders: tuple[EncoderSpec, ...] = ()
    decoders: tuple[DecoderSpec, ...] = ()
    takeovers: Mapping[str, str] = field(default_factory=dict)
    load_seconds: float = 0.0
    error: PluginError | None = None

    @property
    def status(self) -> str:
        """The state of the plugin: "ok", "failed" or "disabled"."""
        return "failed" if self.error else "disabled" if self.found.disabled_by else "ok"

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The specs of the plugin, encoders first."""
        return (*self.encoders, *self.decoders)


def find_plugins() -> tuple[tuple[FoundPlugin, ...], dict[str, str]]:
    """Find all declared plugins, and the plugins that provide zoo's bare ids (ids without `plugin:`).

    Returns:
        Two values: the plugins, sorted by name; and a mapping from each bare id to the module of the plugin that provides it.
    """
    # Search the installed distributions only once, and parse the metadata of each only once: each step takes milliseconds.
    entry_points = _read_entry_points()
    names_and_versions: dict[int, tuple[str, str]] = {}

    def describe(entry_point: EntryPoint) -> FoundPlugin:
        dist = entry_point.dist
        if id(dist) not in names_and_versions:
            names_and_versions[id(dist)] = _read_metadata(dist)
        name, version = names_and_versions[id(dist)]
        return FoundPlugin(
            name=entry_point.name,
            module=entry_point.value,
            distribution=name,
            version=version,
            entry_point=entry_point,
            disabled_by=_disabled_by(entry_point.name, name),
        )

    plugins = sorted(
        map(describe, entry_points.select(group=GROUP)), key=lambda plugin: (plugin.name, plugin.distribution, plugin.module)
    )
    canonical = {
        plugin.name: plugin.module for plugin in map(describe, entry_points.select(group=CANONICAL_GROUP)) if plugin.is_own
    }
    return tuple(plugins), canonical


def _read_entry_points() -> EntryPoints:
    """Return the entry points of all distributions.

    If the entry points of a distribution cannot be read, leave them out, and write a line to standard error.
    """
    found: dict[str, EntryPoints] = {}
    for dist in distributions():
        name = _folder_name(dist)[0] or _read_metadata(dist)[0]
        if name in found:  # of several distributions with the same name, Python imports the first
            continue
        try:
            _check_file(dist, "entry_points.txt")
            found[name] = dist.entry_points
        except Exception as cause:  # noqa: BLE001 - the parser may raise anything on a broken file
            reason = cause.strerror if isinstance(cause, OSError) else cause
            line = (
                f"zoo: no plugin of {name} is available: its entry_points.txt cannot be read: {reason}. Install {name} again."
            )
            sys.stderr.write(f"{printable(line)}\n")
    return EntryPoints(entry for entries in found.values() for entry in entries)


def load_plugins(namesakes: Sequence[FoundPlugin]) -> list[PluginRecord]:
    """Import plugins that have the same name, and return their records. If one fails, its record has an `error` and no specs.

    Several distributions may declare plugins of the same name. If two of them provide different specs with the
    same full id, the records of both have an error, since nothing says which spec is meant. However, if one of the two is zoo's
    own plugin, only the record of the other plugin has an error.
    """
    records = [_load(found) for found in namesakes]
    errors: dict[int, PluginError] = {}
    for first, second in combinations(range(len(records)), 2):
        if clash := _clash(records[first], records[second]):
            for index, other in ((first, second), (second, first)):
                if not records[index].found.is_own:
                    errors.setdefault(index, _clash_error(records[index].found, records[other].found, clash))
    return [
        replace(record, encoders=(), decoders=(), takeovers={}, error=errors[index]) if index in errors else record
        for index, record in enumerate(records)
    ]


def are_same(first: Spec, second: Spec) -> bool:
    """Return whether two specs are equal. Two `partial` objects with equal functions and arguments count as equal."""
    if type(first) is not type(second):
        return False
    return all(_parts(getattr(first, entry.name)) == _parts(getattr(second, entry.name)) for entry in fields(first))


def _parts(value: Any) -> Any:
    return (value.func, value.args, value.keywords) if isinstance(value, partial) else value


def _load(found: FoundPlugin) -> PluginRecord:
    if found.disabled_by:
        return PluginRecord(found=found)
    began = time.perf_counter()
    try:
        with (
            redirect_stdout(sys.stderr),  # text that a plugin prints must not mix with a command's output
            plugin_code(
                f"Importing {found}",
                avoidance=f"Set {DISABLED}={found.name} to leave it out.",
                details=". Repair or uninstall that distribution; `zoo plugins` shows the state of all plugins",
                unchanged=(),
            ),
        ):
            record = _record(found, found.entry_point.load())
    except PluginError as error:  # the error of one plugin must not affect other plugins
        return PluginRecord(found=found, error=error, load_seconds=time.perf_counter() - began)
    return replace(record, load_seconds=time.perf_counter() - began)


def _clash(first: PluginRecord, second: PluginRecord) -> str:
    """Return the full id under which two plugins provide different specs; "" if there is none."""
    theirs = {(type(spec), spec.name): spec for spec in second.specs}
    for mine in first.specs:
        other = theirs.get((type(mine), mine.name))
        if other is not None and not are_same(mine, other):
            return f"{first.found.name}:{mine.name}"
    return ""


def _clash_error(found: FoundPlugin, other: FoundPlugin, id: str) -> PluginError:
    kept = f"; {id} still refers to the spec of {other.distribution}" if other.is_own else ""
    cause = RegistrationError(
        f"it provides {id!r}, but {other.distribution} {other.version} (module {other.module}) has a different spec "
        f"for this id{kept}"
    )
    error = PluginError(
        f"Importing {found} raised {type(cause).__name__}: {cause}. Uninstall {found.distribution} or "
        f"{other.distribution}, disable one of them with {DISABLED}, or ask its author to rename its entry point."
    )
    error.__cause__ = cause
    return error


def _disabled_by(name: str, distribution: str) -> str:
    """Return the environment variable that forbids the import of a plugin; "" if none does."""
    if not {name, distribution}.isdisjoint(_names(os.environ.get(DISABLED, ""))):
        return DISABLED
    allowed = os.environ.get(ALLOWED)
    if allowed is None or distribution == OWN_DISTRIBUTION or not {name, distribution}.isdisjoint(_names(allowed)):
        return ""
    return ALLOWED


def _names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",") if name.strip()}


def _read_metadata(dist: Distribution | None) -> tuple[str, str]:
    """Return the normalized name and the version of a distribution.

    They come from the distribution's metadata or, if its METADATA file cannot be read, from the name of its metadata folder
    (`NAME-VERSION.dist-info`).
    """
    if dist is None:
        return "unknown", ""
    name, version = _folder_name(dist)
    try:
        _check_file(dist, "METADATA")
        metadata = dist.metadata
        stated = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
        name, version = stated.get("Name", name), stated.get("Version", version)
    except Exception:  # noqa: BLE001 - missing, unreadable or not UTF-8: the folder's name is used
        pass
    return _normalize(name) or "unknown", version


def _folder_name(dist: Distribution) -> tuple[str, str]:
    """Return the normalized name and the version in the name of a distribution's metadata folder, without reading a file."""
    stem = Path(str(getattr(dist, "_path", ""))).stem
    name, _, version = stem.partition("-")
    return _normalize(name), version.partition("-")[0]


def _normalize(name: str) -> str:
    return name.lower().replace("_", "-")


def _check_file(dist: Distribution, name: str) -> None:
    """Raise an error if a file of a distribution exists but cannot be read.

    A file that is not regular, such as a pipe, is refused as well, since reading it may never end.

    Raises:
        OSError: the file is not a regular file, is a loop of symbolic links, or cannot be read.
    """
    folder = getattr(dist, "_path", None)
    if isinstance(folder, Path) and os.path.lexists(folder / name):
        check_regular(folder / name)
        if not os.access(folder / name, os.R_OK):
            raise PermissionError(errno.EACCES, "Permission denied")


def _record(found: FoundPlugin, module: ModuleType) -> PluginRecord:
    """Call the hooks of an imported plugin, and return its record."""
    name = found.name
    if name in (LOCAL, MODULE) or ":" in name:
        raise RegistrationError(
            f"its entry point is called {name!r}; a plugin's name must have no colon and must not be {LOCAL!r} or {MODULE!r}"
        )
    made_for = getattr(module, "zoo_api", 1)
    if not isinstance(made_for, int) or made_for < 1:
        raise RegistrationError(f"its zoo_api must be a whole number of at least 1, found {made_for!r}")
    if made_for > API_VERSION:
        raise RegistrationError(
            f"it is made for plugin API {made_for}, but this version of zoo has {API_VERSION}; upgrade {OWN_DISTRIBUTION}"
        )
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise RegistrationError(
            f"the module {module.__name__} implements no hook; mark zoo_encoders() or zoo_decoders() with @zoo.plugin.hookimpl"
        )
    encoders = _collect(chain.from_iterable(manager.hook.zoo_encoders()), EncoderSpec)
    decoders = _collect(chain.from_iterable(manager.hook.zoo_decoders()), DecoderSpec)
    takeovers: dict[str, str] = {}
    for functions in manager.hook.zoo_takeovers():
        is_mapping = isinstance(functions, Mapping) and all(isinstance(library, str) for library in functions)
        if not is_mapping or not all(map(is_factory_path, functions.values())):
            raise RegistrationError(f"zoo_takeovers must map library names to 'package.module:name', found {functions!r}")
        takeovers |= functions
    return PluginRecord(found=found, encoders=encoders, decoders=decoders, takeovers=takeovers)


def _collect(yielded: Iterator[object], kind: type[_Spec]) -> tuple[_Spec, ...]:
    specs: dict[str, _Spec] = {}
    for spec in yielded:
        if not isinstance(spec, kind):
            raise RegistrationError(f"its hook must yield zoo.plugin.{kind.__name__} entries, found {spec!r}")
        if spec.name in specs and not are_same(specs[spec.name], spec):
            raise RegistrationError(f"it yields two different specs under the name {spec.name!r}")
        specs[spec.name] = spec
    return tuple(specs.values())
