"""Calibrate a device: time a small, varied set of pairings, and fit the cost model to their times."""

from __future__ import annotations

import math
import random
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.operation import total_flops
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.local import LocalProcesses
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.running.sweep import open_session
from zoo.benchmark.running.trial_passes import time_operations
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.store.store import Store
from zoo.common.choices import CALIBRATION, DEFAULT_STORE
from zoo.common.devices import choose_device
from zoo.common.json_cache import JsonCache
from zoo.errors import OptionError, StoreError, ZooError
from zoo.pairing.pairing import Pairing
from zoo.registry.discovery import LOCAL
from zoo.registry.registry import list_decoders, list_encoders
from zoo.search.cost_model import CostModel, fit_cost_model
from zoo.search.counting.counter import PairingCounter, default_cache
from zoo.search.counting.missing import count_missing

__all__ = ["Calibration", "Setting", "calibrate", "family_of", "find_calibration", "sample_pairings", "time_pairings"]

SEED = 0
MOST_OF_A_FAMILY = 2
"""How many of the timed encoders may have names that begin with the same word."""
DRAWS = 2.0
"""How many encoders are considered for each pairing that is timed."""
COUNTED_SIDE = 256
"""The side length of the image for which the FLOPs of the pairings are counted when they are chosen."""
ACCELERATOR = 50
"""How many times more FLOPs a call may have on an accelerator."""

SAME = ("device", "device_name", "threads")
"""The facts of the environment that a calibration must share with the environment that it is used in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """An image size and a batch size, how many pairings are timed with them, and the most FLOPs of a call on the CPU."""

    size: int
    batch: int
    pairings: int
    most_flops: float

    @property
    def scale(self) -> float:
        """The number of pixels of a batch, relative to one image of `COUNTED_SIDE` x `COUNTED_SIDE`."""
        return self.batch * (self.size / COUNTED_SIDE) ** 2


SETTINGS = (
    Setting(size=96, batch=1, pairings=4, most_flops=16e9),
    Setting(size=256, batch=1, pairings=24, most_flops=16e9),
    Setting(size=512, batch=1, pairings=8, most_flops=40e9),
    Setting(size=256, batch=8, pairings=8, most_flops=40e9),
    Setting(size=512, batch=8, pairings=6, most_flops=40e9),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The cost model of a device, and where it comes from.

    Attributes:
        run: the run whose times the model was fitted to.
        model: the cost model.
    """

    run: StoredRun
    model: CostModel


def calibrate(store: Store, watcher: Watcher, *, device: str = "auto") -> Calibration:
    """Time a small, varied set of pairings on a device, store the times as a run, and fit the cost model to them.

    An interrupted calibration is resumed.

    Raises:
        ZooError: the device is not available, or too few pairings can be timed.
    """
    config = sample_pairings(CALIBRATION, SETTINGS, device=device, watcher=watcher, of_a_family=MOST_OF_A_FAMILY, draws=DRAWS)
    return _fit(store, time_pairings(config, store, watcher))


def time_pairings(config: BenchConfig, store: Store, watcher: Watcher) -> StoredRun:
    """Time the operations of all trials of a configuration, and return the run.

    Raises:
        ZooError: the configuration has an error.
    """
    with open_session(config, store, watcher, LocalProcesses) as session:
        time_operations(session)
    store.finish_run(session.run)
    return store.run(session.run)


def find_calibration(store: Store, *, device: str = "auto") -> Calibration:
    """Return the latest calibration of a device in a store. One that timed too few pairings does not hide an earlier one.

    Raises:
        StoreError: there is none.
    """
    environment = describe_environment(choose_device(device)).as_dict()
    runs = [run for run in store.runs() if run.name == CALIBRATION and run.finished]
    failures = []
    for run in reversed(runs):
        if _is_same(run.environment, environment):
            try:
                return _fit(store, run)
            except StoreError as failure:
                failures.append(failure)
    if failures:
        raise failures[0]
    name = f"{environment['device_name']} ({environment['device']}, {environment['threads']} threads)"
    raise StoreError(
        f"{store.path} has no calibration of {name}. Run `{calibrate_command(store.path, device)}`, which takes a few minutes."
    )


def calibrate_command(store: Path, device: str) -> str:
    """Return the command that calibrates a device."""
    options = [] if device == "auto" else ["--device", device]
    options += [] if store == DEFAULT_STORE else ["--store", str(store)]
    return shlex.join(["zoo", "calibrate", *options])


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether times measured in one environment apply to the other."""
    return all(one[fact] == other[fact] for fact in SAME) and one["versions"]["torch"] == other["versions"]["torch"]


def sample_pairings(
    name: str,
    settings: Sequence[Setting],
    *,
    device: str,
    watcher: Watcher,
    seed: int = SEED,
    without: Collection[str] = (),
    of_a_family: int,
    draws: float,
) -> BenchConfig:
    """Choose pairings at random, and return a configuration that measures them.

    Args:
        name: the name of the run.
        settings: the image sizes and batch sizes, and how many pairings are chosen for each. No encoder is chosen twice.
        device: the device's name, or "auto".
        watcher: shows the progress.
        seed: the seed of the choice.
        without: the ids of encoders that are not chosen.
        of_a_family: how many of the encoders may have names that begin with the same word.
        draws: how many encoders are considered for each pairing that is wanted.

    Raises:
        OptionError: no pairing of installed encoders and decoders can be timed with these settings.
    """
    chosen_device = choose_device(device)
    encoders, decoders = _encoders(seed, without, of_a_family), [id for id in list_decoders() if not id.startswith(f"{LOCAL}:")]
    draw, count = random.Random(seed), math.ceil(draws * sum(setting.pairings for setting in settings))
    drawn = [Pairing(encoder, draw.choice(decoders)) for encoder in islice(encoders if decoders else (), count)]
    chosen: dict[Setting, list[Pairing]] = {setting: [] for setting in settings}
    speed = 1 if chosen_device.type == "cpu" else ACCELERATOR
    for pairing, flops in _count_flops(drawn, watcher):
        open_settings = [setting for setting, pairings in chosen.items() if len(pairings) < setting.pairings]
        # Few encoders are small enough for large images and batches, so these are filled first.
        fitting = [setting for setting in open_settings if flops * setting.scale <= speed * setting.most_flops]
        if fitting:
            chosen[max(fitting, key=lambda setting: setting.scale)].append(pairing)
    if not any(chosen.values()):
        raise OptionError(
            "No pairing of the installed encoders and decoders can be timed: there are none, or all are too large. "
            "`zoo plugins` lists what is installed. timm's encoders are installed with: pip install timm."
        )
    return BenchConfig.model_validate(
        {
            "name": name,
            "pairings": [
                {"encoder": pairing.encoder, "decoder": pairing.decoder} for pairings in chosen.values() for pairing in pairings
            ],
            "exclude": _exclude_others(chosen),
            "modes": ["inference"],
            "size": sorted({setting.size for setting in settings}),
            "batch": sorted({setting.batch for setting in settings}),
            "device": str(chosen_device),
        }
    )


def _exclude_others(chosen: Mapping[Setting, Sequence[Pairing]]) -> list[dict[str, Any]]:
    """Return rules that exclude each pairing from all sizes and batch sizes but its own."""
    encoders = {setting: [pairing.encoder for pairing in pairings] for setting, pairings in chosen.items()}
    rules: list[dict[str, Any]] = []
    for size, batch in product(sorted({setting.size for setting in chosen}), sorted({setting.batch for setting in chosen})):
        own = {id for setting, ids in encoders.items() if (setting.size, setting.batch) == (size, batch) for id in ids}
        others = [id for ids in encoders.values() for id in ids if id not in own]
        if others:
            rules.append({"size": [size], "batch": [batch], "encoder": others})
    return rules


def _encoders(seed: int, without: Collection[str], of_a_family: int) -> Iterator[str]:
    """Yield the ids of encoders in random order, few of each family."""
    ids = [id for id in list_encoders() if not id.startswith(f"{LOCAL}:")]
    random.Random(seed).shuffle(ids)
    counts = Counter[str]()
    for id in ids:
        if id not in without:
            counts[family_of(id)] += 1
            if counts[family_of(id)] <= of_a_family:
                yield id


def family_of(id: str) -> str:
    """Return the first word of an encoder's name, which encoders of one family usually share."""
    return next(iter(re.findall(r"[a-z]+", id.rpartition(":")[2])), id)


def _count_flops(pairings: Sequence[Pairing], watcher: Watcher) -> Iterator[tuple[Pairing, float]]:
    """Yield the pairings, each with its FLOPs for one image. Those that cannot be counted are left out."""
    with closing(JsonCache(default_cache(), watcher.say)) as counts:
        counter = PairingCounter(counts)
        pairs = []
        for pairing in pairings:
            with suppress(ZooError):  # no plan can be made; there are other pairings to choose from
                pairs.append(counter.parts(pairing, height=COUNTED_SIDE, width=COUNTED_SIDE))
        count_missing(pairs, "encoder", counter, watcher)
        pairs = [pair for pair in pairs if counter.is_known(pair.encoder_key)]
        count_missing(pairs, "rest", counter, watcher)
        for pair in pairs:
            if counter.is_known(pair.rest_key):
                yield pair.pairing, total_flops(pair.encoder.operations) + total_flops(pair.rest.operations)


def _fit(store: Store, run: StoredRun) -> Calibration:
    times = [stored.operation_times for stored in store.trials(run.id) if stored.operation_times]
    try:
        model = fit_cost_model(times)
    except ValueError as cause:
        raise StoreError(
            f"The calibration (run {run.id} of {store.path}) cannot be used: {cause}. Install more encoders, such as timm's "
            f"(pip install timm), or see the failures: zoo table {run.id} --store {store.path}."
        ) from cause
    return Calibration(run=run, model=model)
