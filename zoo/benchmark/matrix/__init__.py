"""The compatibility matrix: every encoder with every decoder, built and run on the meta device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.benchmark.matrix.cells import Cell
from zoo.benchmark.matrix.compatibility import CompatibilityMatrix
from zoo.errors import OptionError
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.registry import Entry, default_registry

__all__ = ["Cell", "CompatibilityMatrix", "default_cache", "matrix"]

LIBRARIES = (OWN_DISTRIBUTION, "torch", "torchvision", "timm", "segmentation-models-pytorch")
"""The distributions whose version may change an outcome, beside those of the two plugins."""
KEY_VERSION = 1
"""Raised when the facts of a cell, or how they are computed, change."""


def matrix(
    encoders: str | None = None,
    decoders: str | None = None,
    *,
    jobs: int = 1,
    limit: float = 300.0,
    fresh: bool = False,
    cache: str | PathLike[str] | None = None,
) -> CompatibilityMatrix:
    """Build and run, on the meta device, every encoder with every decoder; results of earlier runs are reused.

    Args:
        encoders: a glob over names or full ids (`"timm:convnext*"`), or a part of one; None for all.
        decoders: likewise.
        jobs: how many processes build at a time. A pairing that ends its process is a cell with its error; only encoders and
            decoders that are registered at run time are built in this process.
        limit: seconds for one pairing, after which its process is ended.
        fresh: build all again, for example after a change to a plugin under development whose version did not change.
        cache: the SQLite file that keeps the outcomes; None for one in the user's cache folder. Where it cannot be used,
            all is built. Pairings with an encoder or decoder that is registered at run time are never kept.

    Returns:
        The matrix; `print` shows it, `cells` holds its facts. A pairing that fails is a cell with its error.

    Raises:
        UnknownIdError: a pattern matches nothing.
        OptionError: `jobs` is below 1, or `limit` not above 0.

    Example:
        >>> print(zoo.matrix("timm:convnext*", "unet-*", jobs=8))
    """
    from zoo.benchmark.matrix.cache import CellCache
    from zoo.benchmark.matrix.processes import check_here, check_in_processes
    from zoo.benchmark.running.preload import own_modules
    from zoo.benchmark.running.progress import ConsoleWatcher

    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise OptionError(f"jobs must be a whole number of at least 1; found {jobs!r}.")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
        raise OptionError(f"limit must be a number of seconds above 0; found {limit!r}.")
    registry = default_registry()
    rows, columns = registry.matching("encoder", encoders), registry.matching("decoder", decoders)
    versions = _versions()
    keys = {(row.id, column.id): _key(row, column, versions) for row in rows for column in columns}
    path = default_cache() if cache is None else Path(cache)
    with ConsoleWatcher() as watcher, closing(CellCache(path, watcher.say)) as kept:
        if broken := registry.broken():
            watcher.say(f"({len(broken)} plugin(s) could not be loaded; `zoo plugins` says why.)")
        cells = {} if fresh else {ids: cell for ids, key in keys.items() if key and (cell := kept.cell(key))}
        if cells:
            watcher.say(f"{len(cells)} of {len(keys)} cells are known from {path}; `fresh` builds them again.")
        missing = [ids for ids in keys if ids not in cells]
        apart = [ids for ids in missing if not _is_local(ids)]
        here = [ids for ids in missing if _is_local(ids)]
        watcher.begin(len(missing))
        with closing(check_in_processes(apart, jobs, limit, own_modules([*rows, *columns]))) as from_processes:
            for outcome in chain(from_processes, check_here(here)):
                cell = outcome.cell
                ids = cell.encoder, cell.decoder
                cells[ids] = cell
                if outcome.is_lasting and (key := keys[ids]):
                    kept.keep(key, cell)
                watcher.advance(f"{cell.encoder} x {cell.decoder}")
    return CompatibilityMatrix(cells=tuple(cells[ids] for ids in keys), versions=versions)


def default_cache() -> Path:
    """Return the default file that keeps the cells."""
    from platformdirs import user_cache_path

    return user_cache_path(OWN_DISTRIBUTION) / "compatibility.sqlite"


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "-"


def _key(encoder: Entry[Any], decoder: Entry[Any], versions: Mapping[str, str]) -> str | None:
    """Return all that an outcome depends on, as JSON; None where that is unknown."""
    sides = [(side.full_id, side.distribution, side.version) for side in (encoder, decoder)]
    return None if _is_local((encoder.id, decoder.id)) else json.dumps([KEY_VERSION, *sides, dict(versions)])


def _is_local(ids: tuple[str, str]) -> bool:
    return any(id.startswith(f"{LOCAL}:") for id in ids)
