"""Count many parts of pairings, in several processes at the same time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Literal

from zoo.benchmark.running.progress import Watcher
from zoo.common.item_processes import ItemWork, count_cores, process_items
from zoo.errors import PluginError
from zoo.search.counting import PairingCounter, PairingParts

__all__ = ["count_missing"]

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

    If there are many and the counter has a cache, they are counted in as many processes as there are cores. A part that cannot
    be counted raises no error here: the counter raises it when the part is requested.

    Args:
        pairs: the pairings. For the rest, the encoders must be counted.
        part: what to count.
        counter: the counter of the pairings.
        watcher: shows the progress.
        deadline: the time (`time.monotonic`) after which nothing further is counted, except for what a script registered:
            these counts are few, and are not kept.
        plugins: the paths of the files that register encoders or decoders.
    """
    missing: dict[str, PairingParts] = {}
    for pair in pairs:
        key = pair.encoder_key if part == "encoder" else pair.rest_key
        if not counter.is_counted(key):
            missing.setdefault(key, pair)
    watcher.begin(len(missing))
    apart = {key: pair for key, pair in missing.items() if not pair.is_local}
    if counter.cache is not None and counter.cache.is_usable and len(apart) >= MANY:
        work = ItemWork(
            function="zoo.search.counting:count_all",
            arguments={"cache": str(counter.cache.path), "plugins": list(plugins)},
            limit=COUNT_SECONDS,
            per_fork=PER_FORK,
        )
        items = [{"key": key, "part": part, **pair.as_dict()} for key, pair in apart.items()]
        with closing(process_items(items, work, count_cores())) as results:
            for result in results:
                key = result.item["key"]
                if error := result.error or (result.facts or {}).get("error"):
                    counter.fail(key, PluginError(error))
                watcher.advance(f"counting {missing[key].pairing}")
                if time.monotonic() > deadline:
                    break
        missing = {key: pair for key, pair in missing.items() if key not in apart}
    for pair in missing.values():
        if time.monotonic() > deadline and not pair.is_local:
            continue
        with suppress(Exception):  # the counter remembers the error
            getattr(pair, part)
        watcher.advance(f"counting {pair.pairing}")
