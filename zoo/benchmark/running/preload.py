"""Decide which modules a fresh process imports for a trial's model, and whether it can make the model at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from zoo.benchmark.trial import Reference, Trial
from zoo.errors import ZooError
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.registry import Entry, Kind, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["is_made_here", "modules_to_import", "own_modules"]


def is_made_here(trial: Trial, from_files: Collection[tuple[Kind, str]]) -> bool:
    """Return whether only this process can make the model: a script or a notebook's cell registered a part of it.

    Args:
        trial: of the model.
        from_files: the registrations of the configuration's plugin files, which any process can repeat.
    """
    if isinstance(trial.subject, Reference):
        return trial.subject.factory.startswith("__main__:")
    return any(entry.plugin == LOCAL and (entry.kind, entry.spec.name) not in from_files for entry in _entries(trial))


def modules_to_import(trials: Iterable[Trial]) -> list[str]:
    """Return the modules of the project's own factories and of the references, for a process that forks for each trial."""
    names = []
    for trial in trials:
        if isinstance(trial.subject, Reference):
            names.append(trial.subject.factory.partition(":")[0])
        else:
            names += own_modules(_entries(trial))
    return [name for name in dict.fromkeys(names) if name != "__main__"]


def own_modules(entries: Iterable[Entry[EncoderSpec] | Entry[DecoderSpec]]) -> list[str]:
    """Return the modules of the project's own factories.

    A process that imports them once, and forks, saves each fork the seconds that this takes. A third party's are left to
    each fork: threads and files that they open when imported cannot be shared.
    """
    factories = [entry.spec.factory for entry in entries if entry.distribution == OWN_DISTRIBUTION]
    return list(dict.fromkeys(factory.partition(":")[0] for factory in factories if isinstance(factory, str)))


def _entries(trial: Trial) -> list[Entry[EncoderSpec] | Entry[DecoderSpec]]:
    """Return the registry's entries of a pairing; an unknown id is reported when the pairing is built."""
    if isinstance(trial.subject, Reference):
        return []
    registry, entries = default_registry(), list[Entry[EncoderSpec] | Entry[DecoderSpec]]()
    for find, id in ((registry.encoder, trial.subject.encoder), (registry.decoder, trial.subject.decoder)):
        try:
            entries.append(find(id))
        except ZooError:
            continue
    return entries
