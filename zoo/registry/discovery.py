"""Find plugins by their entry points without importing them, and load each in isolation."""

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
"""The environment variable that names the foreign plugins, or their distributions, that may be imported; empty for none."""
DISABLED = "ZOO_DISABLE_PLUGINS"
"""The environment variable that names the plugins, or their distributions, that may not."""

OWN_DISTRIBUTION = "segmentation-zoo"
CANONICAL_GROUP = "zoo.canonical"
"""Entry points of this distribution only: a bare id and the module that has it, so that no other plugin is loaded for it."""

LOCAL = "local"
"""The part of an id before the colon for what a script or notebook registers; no plugin may have this name."""

MODULE = "module"
"""The part of an id before the colon for a module that no registry has; no plugin may have this name."""

_Spec = TypeVar("_Spec", EncoderSpec, DecoderSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlugin:
    """A plugin that an installed distribution announces; it is not imported yet.

    Attributes:
        disabled_by: the environment variable that forbids to import it; empty if none does.
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
    """A plugin after the attempt to load it: its specs, or its error.

    Attributes:
        takeovers: the function `package.module:name` that converts a library's models, by the library's module name.
    """

    found: FoundPlugin
    encoders: tuple[EncoderSpec, ...] = ()
    decoders: tuple[DecoderSpec, ...] = ()
    takeovers: Mapping[str, str] = field(default_factory=dict)
    load_seconds: float = 0.0
    error: PluginError | None = None

    @property
    def status(self) -> str:
        """In a word: "ok", "failed" or "disabled"."""
        return "failed" if self.error else "disabled" if self.found.disabled_by else "ok"

    @property
    def specs(self) -> tuple[Spec, ...]:
        """What it gives, encoders first."""
        return (*self.encoders, *self.decoders)


def find_plugins() -> tuple[tuple[FoundPlugin, ...], dict[str, str]]:
    """Return every announced plugin, sorted, and this distribution's bare ids with the module of the plugin that has each.

    The installed distributions are looked through once, and each one's metadata is parsed once: both take milliseconds.
    """
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
    """Return the entry points of all distributions; report those that cannot be read."""
    found: dict[str, EntryPoints] = {}
    for dist in distributions():
        name = _folder_name(dist)[0] or _read_metadata(dist)[0]
        if name in found:  # the first of a name is the one that is imported
            continue
        try:
            _check_file(dist, "entry_points.txt")
            found[name] = dist.entry_points
        except Exception as cause:  # noqa: BLE001 - the parser may raise anything on a broken file
            reason = cause.strerror if isinstance(cause, OSError) else cause
            line = (
                f"zoo: no plugins of the distribution {name}: its entry_points.txt cannot be read: {reason}. Install it again."
            )
            sys.stderr.write(f"{printable(line)}\n")
    return EntryPoints(entry for entries in found.values() for entry in entries)


def load_plugins(namesakes: Sequence[FoundPlugin]) -> list[PluginRecord]:
    """Import the plugins of one name and collect their specs, each whole or not at all; what goes wrong is a record's error.

    Several distributions may announce one name. Where two of them give different specs under one full id, neither is taken,
    since nothing says which is meant; but no other distribution takes this project's ids from it.
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
    """Tell whether two specs say the same; a `partial` made twice of the same parts is the same."""
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
            redirect_stdout(sys.stderr),  # what a plugin prints is not part of what a command prints
            plugin_code(
                f"Importing {found}",
                avoidance=f"{DISABLED}={found.name} leaves it out.",
                details=". Repair or uninstall that distribution; `zoo plugins` shows the state of all",
                unchanged=(),
            ),
        ):
            record = _record(found, found.entry_point.load())
    except PluginError as error:  # no plugin may harm another
        return PluginRecord(found=found, error=error, load_seconds=time.perf_counter() - began)
    return replace(record, load_seconds=time.perf_counter() - began)


def _clash(first: PluginRecord, second: PluginRecord) -> str:
    """Return the full id under which two plugins give different specs; empty where there is none."""
    theirs = {(type(spec), spec.name): spec for spec in second.specs}
    for mine in first.specs:
        other = theirs.get((type(mine), mine.name))
        if other is not None and not are_same(mine, other):
            return f"{first.found.name}:{mine.name}"
    return ""


def _clash_error(found: FoundPlugin, other: FoundPlugin, id: str) -> PluginError:
    kept = f"; {id} stays {other.distribution}'s" if other.is_own else ""
    cause = RegistrationError(
        f"it gives {id!r}, and so does, with another spec, {other.distribution} {other.version} (module {other.module}){kept}"
    )
    error = PluginError(
        f"Importing {found} raised {type(cause).__name__}: {cause}. Uninstall one of {found.distribution} and "
        f"{other.distribution}, switch one off by {DISABLED}, or ask its author to name its entry point otherwise."
    )
    error.__cause__ = cause
    return error


def _disabled_by(name: str, distribution: str) -> str:
    """Return which environment variable keeps a plugin from being imported."""
    if not {name, distribution}.isdisjoint(_names(os.environ.get(DISABLED, ""))):
        return DISABLED
    allowed = os.environ.get(ALLOWED)
    if allowed is None or distribution == OWN_DISTRIBUTION or not {name, distribution}.isdisjoint(_names(allowed)):
        return ""
    return ALLOWED


def _names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",") if name.strip()}


def _read_metadata(dist: Distribution | None) -> tuple[str, str]:
    """Return a distribution's normalized name and version, as far as it has metadata."""
    if dist is None:
        return "unknown", ""
    name, version = _folder_name(dist)
    try:
        _check_file(dist, "METADATA")
        metadata = dist.metadata
        stated = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
        name, version = stated.get("Name", name), stated.get("Version", version)
    except Exception:  # noqa: BLE001 - not to be read, not UTF-8, or not there: the folder says the same
        pass
    return _normalize(name) or "unknown", version


def _folder_name(dist: Distribution) -> tuple[str, str]:
    """Return the normalized name and the version that a distribution's folder says, without reading a file."""
    stem = Path(str(getattr(dist, "_path", ""))).stem
    name, _, version = stem.partition("-")
    return _normalize(name), version.partition("-")[0]


def _normalize(name: str) -> str:
    return name.lower().replace("_", "-")


def _check_file(dist: Distribution, name: str) -> None:
    """Raise if a distribution's file is not a regular file, such as a pipe that never ends, or cannot be read.

    Raises:
        OSError: it has, or its links lead in a circle.
    """
    folder = getattr(dist, "_path", None)
    if isinstance(folder, Path) and os.path.lexists(folder / name):
        check_regular(folder / name)
        if not os.access(folder / name, os.R_OK):
            raise PermissionError(errno.EACCES, "Permission denied")


def _record(found: FoundPlugin, module: ModuleType) -> PluginRecord:
    """Return what a plugin's hooks give."""
    name = found.name
    if name in (LOCAL, MODULE) or ":" in name:
        raise RegistrationError(
            f"its entry point is called {name!r}; a plugin's name has no colon and is not {LOCAL!r} or {MODULE!r}"
        )
    made_for = getattr(module, "zoo_api", 1)
    if not isinstance(made_for, int) or made_for < 1:
        raise RegistrationError(f"its zoo_api must be a whole number of at least 1, found {made_for!r}")
    if made_for > API_VERSION:
        raise RegistrationError(
            f"it is made for plugin API {made_for}, and this version of zoo has {API_VERSION}; upgrade {OWN_DISTRIBUTION}"
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
            raise RegistrationError(f"zoo_takeovers must return 'package.module:name' by a library's name, found {functions!r}")
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
