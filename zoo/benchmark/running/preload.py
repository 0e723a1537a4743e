"""Decide which modules a new process imports before it measures trials, and which models only the calling process can build."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from zoo.benchmark.trial import Reference, Trial
from zoo.errors import ZooError
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.registry import Entry, Kind, default_registry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["is_made_here", "modules_to_import", "own_modules"]


def is_made_here(trial: Trial, from_files: Collection[tuple[Kind, str]]) -> bool:
    """Return whether only this process can build a trial's model.

    This is the case if a script or notebook registered the pairing's encoder or decoder, or defines the factory of the
    reference model.

    Args:
        trial: the trial that the model belongs to.
        from_files: the kind and the name of each encoder and decoder that the configuration's plugin files register. Any
            process can load these files.
    """
    if isinstance(trial.subject, Reference):
        return trial.subject.factory.startswith("__main__:")
    return any(entry.plugin == LOCAL and (entry.kind, entry.spec.name) not in from_files for entry in _entries(trial))


def modules_to_import(trials: Iterable[Trial]) -> list[str]:
    """Return the names of the modules that a process imports before it forks for each job.

    These modules contain the factories of zoo's own encoders and decoders, and of reference models (which are not pairings).
    """
    names = []
    for trial in trials:
        if isinstance(trial.subject, Reference):
            names.append(trial.subject.factory.partition(":")[0])
        else:
            names += own_modules(_entries(trial))
    return [name for name in dict.fromkeys(names) if name != "__main__"]


def own_modules(entries: Iterable[Entry[EncoderSpec] | Entry[DecoderSpec]]) -> list[str]:
    """Return the names of the Python modules that define the factories of these registry entries.

    Entries from distributions other than zoo's are left out.

    If a process imports these modules and then forks, no fork spends seconds on importing them. The modules of other
    distributions are imported in each fork, because forks cannot share the threads and open files that an import may create.
    """
    factories = [entry.spec.factory for entry in entries if entry.distribution == OWN_DISTRIBUTION]
    return list(dict.fromkeys(factory.partition(":")[0] for factory in factories if isinstance(factory, str)))


def _entries(trial: Trial) -> list[Entry[EncoderSpec] | Entry[DecoderSpec]]:
    """Return the registry's entries for the encoder and the decoder of a trial's pairing; [] for a reference model.

    An unknown id is skipped here: the error is reported when the pairing is built.
    """
    if isinstance(trial.subject, Reference):
        return []
    registry, entries = default_registry(), list[Entry[EncoderSpec] | Entry[DecoderSpec]]()
    for find, id in ((registry.encoder, trial.subject.encoder), (registry.decoder, trial.subject.decoder)):
        try:
            entries.append(find(id))
        except ZooError:
            continue
    return entries
