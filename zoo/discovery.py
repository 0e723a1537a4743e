"""From entry points to plugin records: found without importing anything, then loaded one by one, each in isolation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import TypeVar

import pluggy

from zoo import hookspecs
from zoo.errors import PluginError, RegistrationError
from zoo.hookspecs import GROUP
from zoo.specs import DecoderSpec, EncoderSpec

__all__ = [
    "CANONICAL_GROUP",
    "LOCAL",
    "OWN_DISTRIBUTION",
    "FoundPlugin",
    "PluginRecord",
    "find_plugins",
    "load_plugin",
]

OWN_DISTRIBUTION = "segmentation-zoo"
CANONICAL_GROUP = "zoo.canonical"
"""Entry points of this distribution only: a bare id and the module that has it, so that no other plugin is loaded for it."""

LOCAL = "local"
"""What stands before the colon for what a script or notebook registers at run time; no plugin may be called so."""

_Spec = TypeVar("_Spec", EncoderSpec, DecoderSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlugin:
    """A plugin that an installed distribution announces; nothing of it is imported yet."""

    name: str
    module: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def is_own(self) -> bool:
        """Whether this project's own distribution ships the plugin."""
        return self.distribution == OWN_DISTRIBUTION


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """A plugin after the attempt to load it: its specs, or its error and none."""

    found: FoundPlugin
    encoders: tuple[EncoderSpec, ...] = ()
    decoders: tuple[DecoderSpec, ...] = ()
    load_seconds: float = 0.0
    error: PluginError | None = None


def find_plugins() -> tuple[tuple[FoundPlugin, ...], dict[str, str]]:
    """Return every announced plugin, sorted, and this distribution's bare ids with the module of the plugin that has each.

    The installed distributions are looked through once, and each one's metadata is parsed once: both take milliseconds.
    """
    announced = entry_points()
    stated: dict[int, tuple[str, str]] = {}

    def found(entry_point: EntryPoint) -> FoundPlugin:
        dist = entry_point.dist
        if id(dist) not in stated:
            stated[id(dist)] = _stated(dist)
        name, version = stated[id(dist)]
        return FoundPlugin(
            name=entry_point.name,
            module=entry_point.value,
            distribution=name,
            version=version,
            entry_point=entry_point,
        )

    plugins = sorted(
        map(found, announced.select(group=GROUP)), key=lambda plugin: (plugin.name, plugin.distribution, plugin.module)
    )
    canonical = {plugin.name: plugin.module for plugin in map(found, announced.select(group=CANONICAL_GROUP)) if plugin.is_own}
    return tuple(plugins), canonical


def load_plugin(found: FoundPlugin) -> PluginRecord:
    """Import a plugin and collect its specs, whole or not at all; what goes wrong becomes the record's error."""
    began = time.perf_counter()
    try:
        encoders, decoders = _specs_of(found.name, found.entry_point.load())
    except (Exception, SystemExit) as cause:  # noqa: BLE001 - no plugin may harm another
        error = PluginError(
            f"Plugin {found.name!r} ({found.distribution} {found.version}, module {found.module}) could not be loaded: "
            f"{type(cause).__name__}: {cause}. Mend or uninstall that distribution; `zoo plugins` shows the state of all."
        )
        error.__cause__ = cause
        return PluginRecord(found=found, error=error, load_seconds=time.perf_counter() - began)
    return PluginRecord(found=found, encoders=encoders, decoders=decoders, load_seconds=time.perf_counter() - began)


def _stated(dist: Distribution | None) -> tuple[str, str]:
    """Return a distribution's normalised name and version, as far as it has metadata."""
    metadata = dist.metadata if dist else None
    stated = {key: metadata[key] for key in ("Name", "Version") if metadata and key in metadata}
    return stated.get("Name", "unknown").lower().replace("_", "-"), stated.get("Version", "")


def _specs_of(name: str, module: ModuleType) -> tuple[tuple[EncoderSpec, ...], tuple[DecoderSpec, ...]]:
    if name == LOCAL or ":" in name:
        raise RegistrationError(f"its entry point is called {name!r}; a plugin's name has no colon and is not {LOCAL!r}")
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise RegistrationError(
            f"the module {module.__name__} implements no hook; mark zoo_encoders() or zoo_decoders() with @zoo.hookimpl"
        )
    encoders = _collected(_chained(manager.hook.zoo_encoders()), EncoderSpec)
    decoders = _collected(_chained(manager.hook.zoo_decoders()), DecoderSpec)
    return encoders, decoders


def _chained(results: Sequence[Iterable[object]]) -> Iterator[object]:
    for result in results:
        yield from result


def _collected(yielded: Iterator[object], kind: type[_Spec]) -> tuple[_Spec, ...]:
    specs: dict[str, _Spec] = {}
    for spec in yielded:
        if not isinstance(spec, kind):
            raise RegistrationError(f"its hook must yield zoo.{kind.__name__} entries, found {spec!r}")
        if spec.name in specs and specs[spec.name] != spec:
            raise RegistrationError(f"it yields two different specs under the name {spec.name!r}")
        specs[spec.name] = spec
    return tuple(specs.values())
