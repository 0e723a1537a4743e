"""The compatibility matrix: which encoders work with which decoders, tested by building and running the models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.benchmark.matrix.cells import Cell, Outcome
from zoo.benchmark.matrix.compatibility import CompatibilityMatrix
from zoo.common.item_processes import ItemResult, ItemWork, process_items
from zoo.common.json_cache import JsonCache
from zoo.errors import OptionError
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.library_versions import library_versions
from zoo.registry.registry import Entry, default_registry

__all__ = ["Cell", "CompatibilityMatrix", "default_cache", "matrix"]

KEY_VERSION = 1
"""The version of the cache's entries. Increase it when the fields of `Cell`, or the way in which they are computed, change."""


def matrix(
    encoders: str | None = None,
    decoders: str | None = None,
    *,
    jobs: int = 1,
    limit: float = 300.0,
    fresh: bool = False,
    cache: str | PathLike[str] | None = None,
) -> CompatibilityMatrix:
    """Build and run every encoder with every decoder on the meta device. Results of earlier runs are reused.

    A model whose code reads the values of tensors is run on the CPU, since tensors on the meta device have no values.

    Args:
        encoders: a glob over names or full ids (`"timm:convnext*"`), or a part of a name or id; None for all encoders.
        decoders: a pattern for the decoders, as for `encoders`.
        jobs: the number of processes that build models at the same time. If a pairing crashes its process, the pairing's cell
            contains the error. Pairings with an encoder or decoder that is registered at run time are built in the calling
            process.
        limit: how many seconds one pairing may take before its process is killed. The limit does not apply to pairings that
            are built in the calling process.
        fresh: whether to build all pairings again, for example because the code of a plugin has changed, but not its
            version.
        cache: the SQLite file that stores the outcomes; None for a file in the user's cache folder. If the file cannot be
            used, all pairings are built. Pairings with an encoder or decoder that is registered at run time are never stored.

    Returns:
        The matrix. `print` shows it, and `cells` contains the result of each pairing. The cell of a pairing that fails
        contains the error.

    Raises:
        UnknownIdError: a pattern matches nothing.
        OptionError: `jobs` is not a whole number of at least 1, or `limit` is not a finite number above 0.

    Example:
        >>> print(zoo.matrix("timm:convnext*", "unet-*", jobs=8))
    """
    from zoo.benchmark.running.preload import own_modules
    from zoo.benchmark.running.progress import ConsoleWatcher

    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise OptionError(f"jobs must be a whole number of at least 1; found {jobs!r}.")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
        raise OptionError(f"limit must be a finite number of seconds above 0; found {limit!r}.")
    registry = default_registry()
    rows, columns = registry.matching("encoder", encoders), registry.matching("decoder", decoders)
    versions = library_versions()
    keys = {(row.id, column.id): _key(row, column, versions) for row in rows for column in columns}
    path = default_cache() if cache is None else Path(cache)
    with ConsoleWatcher() as watcher, closing(JsonCache(path, watcher.say)) as kept:
        if broken := registry.broken():
            watcher.say(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)")
        cells = {} if fresh else {ids: cell for ids, key in keys.items() if key and (cell := _read(kept, key))}
        if cells:
            watcher.say(f"{len(cells)} of {len(keys)} cells were read from {path}. Use `fresh` to build them again.")
        missing = [ids for ids in keys if ids not in cells]
        apart = [ids for ids in missing if not _is_local(ids)]
        here = [ids for ids in missing if _is_local(ids)]
        watcher.begin(len(missing))
        work = ItemWork(function="zoo.benchmark.matrix.check:check_all", limit=limit, preload=own_modules([*rows, *columns]))
        with closing(process_items(apart, work, jobs)) as from_processes:
            for outcome in chain(map(_outcome, from_processes), _check_here(here)):
                cell = outcome.cell
                ids = cell.encoder, cell.decoder
                cells[ids] = cell
                if outcome.is_lasting and (key := keys[ids]):
                    kept.keep(key, cell.as_dict())
                watcher.advance(f"{cell.encoder} x {cell.decoder}")
    return CompatibilityMatrix(cells=tuple(cells[ids] for ids in keys), versions=versions)


def _outcome(result: ItemResult) -> Outcome:
    """Return the outcome of a check in another process. A check that crashed or hung may succeed another time."""
    if result.facts is not None:
        return Outcome.from_dict(result.facts)
    encoder, decoder = result.item
    hint = " Set a higher limit (--limit) to allow more time." if result.error.startswith("HangError") else ""
    return Outcome(cell=Cell(encoder=encoder, decoder=decoder, error=result.error + hint), is_lasting=False)


def _check_here(pairings: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
    """Check pairings that only this process can build, and yield their outcomes in order."""
    for pairing in pairings:
        from zoo.benchmark.matrix.check import check  # imports torch, which is not needed without pairings

        yield check(*pairing)


def default_cache() -> Path:
    """Return the path of the default cache: a file in the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path(OWN_DISTRIBUTION) / "compatibility.sqlite"


def _read(cache: JsonCache, key: str) -> Cell | None:
    """Return the cell that is stored under a key; None if there is none, or if another version of zoo wrote it."""
    facts = cache.read(key)
    try:
        return None if facts is None else Cell.from_dict(facts)
    except (ValueError, TypeError, KeyError):
        return None


def _key(encoder: Entry[Any], decoder: Entry[Any], versions: Mapping[str, str]) -> str | None:
    """Return everything that a pairing's outcome depends on, as JSON.

    Return None if the encoder or decoder was registered at run time, since it has no version.
    """
    sides = [(side.full_id, side.distribution, side.version) for side in (encoder, decoder)]
    return None if _is_local((encoder.id, decoder.id)) else json.dumps([KEY_VERSION, *sides, dict(versions)])


def _is_local(ids: tuple[str, str]) -> bool:
    return any(id.startswith(f"{LOCAL}:") for id in ids)
