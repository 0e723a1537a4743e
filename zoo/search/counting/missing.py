"""Count many parts of pairings, in several processes at the same time."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from zoo.benchmark.measuring.failures import format_error
from zoo.benchmark.running.progress import Watcher
from zoo.common.devices import count_cores
from zoo.common.item_processes import ItemWork, process_items
from zoo.common.json_cache import JsonCache
from zoo.errors import PluginError
from zoo.pairing.pairing import Pairing
from zoo.registry.plugin_files import load_plugin_file
from zoo.search.counting.counter import PairingCounter, PairingParts
from zoo.search.counting.part import Part

__all__ = ["count_all", "count_missing"]

MANY = 24
"""The number of missing counts from which on they are done in processes of their own, which take seconds to start."""
PER_FORK = 25
"""The largest number of counts in one forked process."""
COUNT_SECONDS = 120.0
"""How long one count may take."""


def count_missing(
    pairs: Sequence[PairingParts],
    part: Literal["encoder", "rest"],
    counter: PairingCounter,
    watcher: Watcher,
    *,
    deadline: float = math.inf,
    plugins: Sequence[str] = (),
) -> None:
    """Count the encoders of pairings, or all that follows them, as far as they are not counted yet.

    The parts that most pairings share come first. Parts that equally many share are counted in the order of the pairings.

    If there are many and the counter has a cache, they are counted in as many processes as there are cores. A part that cannot
    be counted raises no error here: the counter raises it when the part is requested.

    Args:
        pairs: the pairings. For the rest, the encoders must be counted.
        part: what to count.
        counter: the counter of the pairings.
        watcher: shows the progress.
        deadline: the time (`time.monotonic`) after which nothing further is counted.
        plugins: the paths of the files that register encoders or decoders.
    """
    from_files = {entry for plugin in plugins for entry in load_plugin_file(Path(plugin))}
    found: dict[str, PairingParts] = {}
    waiting = Counter[str]()
    for pair in pairs:
        key = pair.encoder_key if part == "encoder" else pair.rest_key
        if not counter.is_counted(key):
            waiting[key] += 1
            if key not in found or found[key].needs_this_process(from_files):
                found[key] = pair
    missing = {key: found[key] for key, _ in waiting.most_common()}
    watcher.begin(len(missing))
    apart = {key: pair for key, pair in missing.items() if not pair.needs_this_process(from_files)}
    cache = counter.cache if counter.cache is not None and counter.cache.is_usable else None
    if cache and len(apart) >= MANY and time.monotonic() < deadline:
        work = ItemWork(
            function="zoo.search.counting.missing:count_all",
            arguments={"cache": str(cache.path), "plugins": list(plugins)},
            limit=COUNT_SECONDS,
            per_fork=PER_FORK,
        )
        items = [{"key": key, "part": part, **pair.as_dict()} for key, pair in apart.items()]
        with closing(process_items(items, work, count_cores())) as results:
            for result in results:
                key, facts = result.item["key"], result.facts or {}
                if error := result.error or facts.get("error"):
                    counter.fail(key, PluginError(error))
                elif counted := facts.get("counted"):
                    counter.put(key, Part.from_dict(counted))
                watcher.advance(f"counting {missing[key].pairing}")
                if time.monotonic() > deadline:
                    break
        missing = {key: pair for key, pair in missing.items() if key not in apart}
    for pair in missing.values():
        if time.monotonic() > deadline:
            break
        with suppress(Exception):  # the counter remembers the error
            getattr(pair, part)
        watcher.advance(f"counting {pair.pairing}")


def count_all(items: Sequence[Mapping[str, Any]], cache: str, plugins: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """For each item, yield None when its count begins, and its `error` when it ends. Called in a child process.

    A count that is not in the cache is yielded as `counted`: that of a part from a plugin file, which has no version.

    Args:
        items: the keyword arguments of `PairingCounter.parts`, the `part` to count ("encoder" or "rest"), and its `key`.
        cache: the file in which the counts are kept.
        plugins: the paths of the files that register encoders or decoders.
    """
    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin_file(Path(plugin))
    with closing(JsonCache(Path(cache), lambda _: None)) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # users see these warnings when they build the model
        counter = PairingCounter(opened)
        for item in items:
            yield None
            facts = {name: value for name, value in item.items() if name not in ("key", "part", "pairing")}
            try:
                part = getattr(counter.parts(Pairing(**item["pairing"]), **facts), item["part"])
            except Exception as cause:  # noqa: BLE001 - a plugin's model may raise anything
                yield {"error": format_error(cause)}
            else:
                yield {"error": ""} if opened.read(item["key"]) else {"error": "", "counted": part.as_dict()}
