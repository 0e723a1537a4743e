"""Look up an encoder or a decoder by its id, among plugins and run-time registrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from typing import Any, cast

from zoo.common.suggestions import did_you_mean
from zoo.errors import AmbiguousIdError, OptionError, PluginError, RegistrationError, UnknownIdError
from zoo.registry.discovery import LOCAL, MODULE, FoundPlugin, PluginRecord, are_same, find_plugins, load_plugins
from zoo.registry.entry import Entry, Kind
from zoo.registry.specs import DecoderSpec, EncoderSpec, Spec

__all__ = ["MODULE", "Entry", "Kind", "Registry", "default_registry", "list_decoders", "list_encoders"]


class Registry:
    """All encoders and decoders: those of installed plugins, and those registered at run time.

    A plugin is loaded only when one of its encoders or decoders may be needed.
    """

    def __init__(self, found: tuple[FoundPlugin, ...], canonical: Mapping[str, str]) -> None:
        self.found = found
        self._canonical = canonical
        self._records: dict[FoundPlugin, PluginRecord] = {}
        self._by_name: dict[tuple[Kind, FoundPlugin], dict[str, list[Entry[Any]]]] = {}
        self._local: dict[tuple[Kind, str], Entry[Any]] = {}
        self._news: set[tuple[Kind, str]] = set()

    def encoder(self, id: str) -> Entry[EncoderSpec]:
        """Return the encoder with this id, or raise an UnknownIdError, an AmbiguousIdError or a PluginError."""
        return cast("Entry[EncoderSpec]", self._resolve("encoder", id))

    def decoder(self, id: str) -> Entry[DecoderSpec]:
        """Return the decoder with this id, or raise an UnknownIdError, an AmbiguousIdError or a PluginError."""
        return cast("Entry[DecoderSpec]", self._resolve("decoder", id))

    def either(self, id: str) -> Entry[EncoderSpec] | Entry[DecoderSpec]:
        """Return the encoder or decoder with this id, or raise an error that suggests ids of both kinds."""
        try:
            return self.encoder(id)
        except (UnknownIdError, PluginError) as no_encoder:
            try:
                return self.decoder(id)
            except (UnknownIdError, PluginError) as no_decoder:
                unusable = next((error for error in (no_encoder, no_decoder) if isinstance(error, PluginError)), None)
                raise unusable or UnknownIdError(f"{no_encoder}\n{no_decoder}") from None

    def ids(self, kind: Kind, pattern: str | None = None) -> list[str]:
        """Return the sorted ids of the encoders or decoders that match a pattern. Without a pattern, return all ids.

        The pattern is a glob or a part of the name. A pattern with a dot also matches names that end with the tag of pretrained
        weights (`resnet50.a1_in1k`).
        """
        return sorted(self._matching(kind, pattern))

    def matching(self, kind: Kind, pattern: str | None = None) -> list[Entry[Any]]:
        """Return the entries of the ids that `ids` returns, in the same order.

        Raises:
            UnknownIdError: the pattern matches no id.
        """
        entries = self._matching(kind, pattern)
        if pattern and not entries:
            message = f"No {kind} matches {pattern!r}. `zoo list {kind}s` shows all."
            raise UnknownIdError(message + self._broken_hint())
        return [entries[id] for id in sorted(entries)]

    def _matching(self, kind: Kind, pattern: str | None) -> dict[str, Entry[Any]]:
        entries: Iterable[Entry[Any]] = self._entries(kind)
        if pattern is not None and "." in pattern:
            entries = chain.from_iterable((entry, *_entries_with_tags(entry)) for entry in entries)
        return {entry.id: entry for entry in entries if _matches(entry, pattern)}

    def records(self) -> list[PluginRecord]:
        """Load all plugins, and return their records."""
        return [self._load(plugin) for plugin in self.found]

    def broken(self) -> list[PluginRecord]:
        """Return the records of the plugins that could not be loaded."""
        return [record for record in self.records() if record.error]

    def takeover(self, library: str) -> str:
        """Return the path `package.module:name` of the function that converts a library's models.

        Raises:
            PluginError: no plugin has such a function, or several plugins have one.
        """
        records = [record for record in self.records() if library in record.takeovers]
        if not records:
            raise PluginError(f"No installed plugin converts models of {library}.{self._broken_hint()}")
        if len(records) > 1:
            raise PluginError(
                f"Several plugins convert models of {library}: {', '.join(str(record.found) for record in records)}. "
                "Uninstall all but one."
            )
        return records[0].takeovers[library]

    def register(self, kind: Kind, spec: Spec, *, replace: bool = False) -> None:
        """Register a spec as `local:name`.

        A factory may be registered again under its name, since a notebook cell may run twice.

        Raises:
            RegistrationError: the name is one of zoo's own ids, or another factory is registered under the name and `replace`
                is False.
        """
        if spec.name in self._canonical:
            raise RegistrationError(f"{spec.name!r} is one of zoo's own ids; register your {kind} under another name.")
        old = self._local.get((kind, spec.name))
        if old and not replace and _origin(old.spec.factory) != _origin(spec.factory):
            raise RegistrationError(
                f"Another {kind} named {spec.name!r} is registered already, with the factory {_origin(old.spec.factory)}; the "
                f"new one has the factory {_origin(spec.factory)}. Choose another name, or pass replace=True."
            )
        self._local[kind, spec.name] = Entry(kind=kind, plugin=LOCAL, distribution="", version="", spec=spec)
        self._news.add((kind, spec.name))

    @contextmanager
    def whole_or_nothing(self) -> Iterator[set[tuple[Kind, str]]]:
        """Yield a set to which each registration in the `with` block adds its kind and name.

        If the block raises an error, undo all these registrations.
        """
        before, outer, self._news = dict(self._local), self._news, set()
        try:
            yield self._news
        except BaseException:
            self._local = before
            raise
        finally:
            self._news = outer

    def _resolve(self, kind: Kind, id: str) -> Entry[Any]:
        if not isinstance(id, str):
            raise OptionError(f"The {kind} must be an id (a string such as 'resnet18' or 'unet-basic'); found {id!r}.")
        matches = self._full_id_matches(kind, id) if ":" in id else self._bare_name_matches(kind, id)
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise UnknownIdError(self._unknown(kind, id))
        full_ids = ", ".join(sorted(entry.full_id for entry in matches))
        raise AmbiguousIdError(f"Several plugins have {_a(kind)} named {id!r}. Use one of the full ids: {full_ids}.")

    def _full_id_matches(self, kind: Kind, id: str) -> list[Entry[Any]]:
        plugin_name, _, name = id.partition(":")
        if plugin_name == MODULE:
            raise UnknownIdError(
                f"{id!r} is the name of a module that was passed instead of an id; pass the module itself again."
            )
        if plugin_name == LOCAL:
            return [entry for entry in [self._local.get((kind, name))] if entry]
        plugins = [plugin for plugin in self.found if plugin.name == plugin_name]
        if not plugins:
            known = sorted({plugin.name for plugin in self.found} | {LOCAL})
            hint = did_you_mean(plugin_name, known, most=4, likeness=0.7)
            raise UnknownIdError(f"No plugin named {plugin_name!r}, requested as {id!r}. Installed: {', '.join(known)}.{hint}")
        matches = _drop_duplicates(entry for plugin in plugins for entry in self._find_entries(kind, plugin, name))
        if not matches:
            self._raise_unusable(plugins, id)
        return matches

    def _raise_unusable(self, plugins: Sequence[FoundPlugin], id: str) -> None:
        """Raise an error if one of these plugins is switched off or could not be loaded."""
        for plugin in plugins:
            if plugin.disabled_by:
                raise PluginError(
                    f"{id!r} was requested, but its {plugin} is switched off by the environment variable {plugin.disabled_by}; "
                    "change the variable and restart Python."
                )
            if error := self._load(plugin).error:
                raise error

    def _bare_name_matches(self, kind: Kind, name: str) -> list[Entry[Any]]:
        if module := self._canonical.get(name):
            for plugin in self.found:
                if plugin.is_own and plugin.module == module:
                    self._raise_unusable([plugin], name)
                    own = [entry for entry in self._find_entries(kind, plugin, name) if entry.is_canonical]
                    if own:
                        return own
        local = [entry for entry in [self._local.get((kind, name))] if entry]
        return _drop_duplicates([*(entry for plugin in self.found for entry in self._find_entries(kind, plugin, name)), *local])

    def _entries(self, kind: Kind) -> Iterator[Entry[Any]]:
        for plugin in self.found:
            yield from self._plugin_entries(kind, plugin)
        for (local_kind, _), entry in self._local.items():
            if local_kind == kind:
                yield entry

    def _find_entries(self, kind: Kind, plugin: FoundPlugin, name: str) -> Iterator[Entry[Any]]:
        """Yield a plugin's entries with this name. The name `architecture.tag` means an architecture with the tag's weights."""
        if (kind, plugin) not in self._by_name:
            by_name = self._by_name.setdefault((kind, plugin), {})
            for entry in self._plugin_entries(kind, plugin):
                by_name.setdefault(entry.spec.name, []).append(entry)
        by_name = self._by_name[kind, plugin]
        yield from by_name.get(name, ())
        stem, _, tag = name.partition(".")
        for entry in by_name.get(stem, ()) if tag else ():
            yield from (tagged for tagged in _entries_with_tags(entry) if tagged.spec.name == name)

    def _plugin_entries(self, kind: Kind, plugin: FoundPlugin) -> Iterator[Entry[Any]]:
        record = self._load(plugin)
        specs: tuple[Spec, ...] = record.encoders if kind == "encoder" else record.decoders
        for spec in specs:
            yield Entry(
                kind=kind,
                plugin=plugin.name,
                distribution=plugin.distribution,
                version=plugin.version,
                spec=spec,
                is_canonical=plugin.is_own and self._canonical.get(spec.name) == plugin.module,
            )

    def _load(self, plugin: FoundPlugin) -> PluginRecord:
        if plugin not in self._records:
            namesakes = [other for other in self.found if other.name == plugin.name]
            self._records.update(zip(namesakes, load_plugins(namesakes), strict=True))
        return self._records[plugin]

    def _unknown(self, kind: Kind, id: str) -> str:
        other: Kind = "decoder" if kind == "encoder" else "encoder"
        known = sorted({name for entry in self._entries(kind) for name in (entry.spec.name, entry.full_id)})
        message = (
            f"No {kind} named {id!r} among the {len(self.ids(kind))} known.{did_you_mean(id, known, most=4, likeness=0.7)}"
        )
        if any(id in (entry.spec.name, entry.full_id) for entry in self._entries(other)):
            message += f" ({id!r} is {_a(other)}.)"
        stem, _, tag = id.partition(".")
        for entry in self._entries(kind):
            if tag and stem in (entry.spec.name, entry.full_id) and (tags := getattr(entry.spec, "tags", ())):
                message += f" {entry.full_id} has the tags {', '.join(tags)}."
        message += (
            f" `zoo list {kind}s` shows them all. On the command line, --plugin FILE loads a script that registers others."
        )
        return message + self._broken_hint()

    def _broken_hint(self) -> str:
        hints = {
            "could not be loaded": len(self.broken()),
            "are switched off": sum(bool(plugin.disabled_by) for plugin in self.found),
        }
        return "".join(f" {n} installed plugin(s) {what}; `zoo plugins` says why." for what, n in hints.items() if n)


@cache
def default_registry() -> Registry:
    """Return the registry of this process."""
    return Registry(*find_plugins())


def list_encoders(pattern: str | None = None) -> list[str]:
    """Return the ids of all encoders, sorted: bare names for those of zoo itself, `plugin:name` for others.

    Args:
        pattern: a glob for names or full ids (`"convnext*"`), or a part of a name or full id (`"convnext"`); None for all.
    """
    return default_registry().ids("encoder", pattern)


def list_decoders(pattern: str | None = None) -> list[str]:
    """Return the ids of all decoders, sorted: bare names for those of zoo itself, `plugin:name` for others.

    Args:
        pattern: a glob for names or full ids (`"unet-*"`), or a part of a name or full id (`"unet"`); None for all.
    """
    return default_registry().ids("decoder", pattern)


def _matches(entry: Entry[Any], pattern: str | None) -> bool:
    if pattern is None:
        return True
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    return any(fnmatchcase(name, pattern) for name in (entry.spec.name, entry.full_id))


def _entries_with_tags(entry: Entry[Any]) -> Iterator[Entry[Any]]:
    return (replace(entry, spec=entry.spec.with_tag(tag)) for tag in getattr(entry.spec, "tags", ()))


def _drop_duplicates(entries: Iterable[Entry[Any]]) -> list[Entry[Any]]:
    """Return the entries without duplicates: of several entries with the same full id and equal specs, only the first is kept.

    Duplicates occur, for example, if two distributions ship the same plugin.
    """
    kept: list[Entry[Any]] = []
    for entry in entries:
        if not any(entry.full_id == other.full_id and are_same(entry.spec, other.spec) for other in kept):
            kept.append(entry)
    return kept


def _origin(factory: str | Callable[..., Any]) -> str:
    """Return text that identifies a factory. It stays the same if the code that defines the factory is run again."""
    if isinstance(factory, str):
        return factory
    inner = getattr(factory, "origin", None)
    if isinstance(inner, str):
        return inner
    name = getattr(factory, "__qualname__", repr(factory))
    if name.endswith("<lambda>"):
        name += f" (line {factory.__code__.co_firstlineno})"
    return f"{getattr(factory, '__module__', '?')}:{name}"


def _a(kind: Kind) -> str:
    return "an encoder" if kind == "encoder" else "a decoder"
