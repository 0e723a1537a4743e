"""Find the pairing to use: calibrate a device, estimate what pairings cost on it, and search for the best."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from zoo.api import find_pairing
from zoo.common.choices import DEFAULT_STORE
from zoo.common.signatures import show_options_of
from zoo.errors import OptionError, StoreError
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_fields import PairingOptions

if TYPE_CHECKING:
    from zoo.benchmark.store.store import Store
    from zoo.search.calibration import Calibration
    from zoo.search.estimate import CostEstimate
    from zoo.search.result import SearchResult

__all__ = ["calibrate", "estimate_cost", "search_pairings"]


def calibrate(*, device: str = "auto", store: str | PathLike[str] = DEFAULT_STORE) -> Calibration:
    """Time a small, varied set of pairings on a device, so that `estimate_cost` can estimate the times of all others.

    This takes a few minutes. The times are stored as a run with the name "zoo calibrate". An interrupted calibration is
    resumed.

    Args:
        device: "auto" (an accelerator if there is one, otherwise the CPU) or the name of a torch device.
        store: the SQLite file of the results; created if it does not exist.

    Raises:
        ZooError: the device or the store cannot be used, or too few pairings can be timed.
    """
    from zoo.benchmark.running.progress import ConsoleWatcher
    from zoo.benchmark.store.store import Store
    from zoo.search.calibration import calibrate as run

    with ConsoleWatcher() as watcher, closing(Store(Path(store))) as opened:
        return run(opened, watcher, device=device)


@show_options_of(Pairing)
def estimate_cost(
    encoder: str | Pairing,
    decoder: str | None = None,
    *,
    size: int | tuple[int, int] = 256,
    batch: int = 1,
    device: str = "auto",
    store: str | PathLike[str] = DEFAULT_STORE,
    **options: Unpack[PairingOptions],
) -> CostEstimate:
    """Estimate the latency and the memory of a pairing in inference in float32, without running it.

    The pairing's operations are counted on the meta device. The latency follows from the cost model that `zoo.calibrate` fitted
    to the times of other pairings on this device.

    Args:
        encoder: an encoder's id, or a whole pairing (then without `decoder` and options).
        decoder: a decoder's id.
        size: the side length of a square image, or (H, W), in pixels.
        batch: the number of images per call.
        device: as in `calibrate`.
        store: the SQLite file with the calibration.
        options: options of the pairing, as in `zoo.build`.

    Raises:
        StoreError: the store does not exist, or has no calibration of this device.
        OptionError: `size` or `batch` is not valid.
        ZooError: the pairing cannot be built, or cannot be run on the meta device.

    Example:
        >>> zoo.calibrate()
        >>> print(zoo.estimate_cost("timm:convnext_tiny", "unet-basic", size=512))
    """
    from zoo.search.calibration import find_calibration
    from zoo.search.estimate import estimate

    pairing, entry = find_pairing(encoder, decoder, options)
    if entry is not None:
        raise OptionError("estimate_cost takes the id of an encoder, and no module. zoo.register_encoder gives a module an id.")
    sides = (size, size) if isinstance(size, int) else size
    if not all(type(each) is int and each >= 1 for each in (*sides, batch)) or len(sides) != 2:
        raise OptionError(f"estimate_cost: size and batch must be whole numbers of at least 1; found {size!r} and {batch!r}.")
    with closing(_open_calibrated(store, device)) as opened:
        calibration = find_calibration(opened, device=device)
    return estimate(pairing, calibration, height=sides[0], width=sides[1], batch=batch)


def search_pairings(
    *,
    data: str | PathLike[str] | None = None,
    encoders: Sequence[str] = (),
    decoders: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    classes: int | None = None,
    in_channels: int | None = None,
    max_latency: str | None = None,
    max_memory: str | None = None,
    max_parameters: str | None = None,
    max_flops: str | None = None,
    license: str = "",
    weights: Literal["local", "download", "random"] = "local",
    prior: str | PathLike[str] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    output: str | PathLike[str] | None = None,
    device: str = "auto",
    plugins: Sequence[str | PathLike[str]] = (),
    store: str | PathLike[str] = DEFAULT_STORE,
    ray: str | None = None,
) -> SearchResult:
    """Search all pairings for the best ones that meet the limits, on this device.

    All pairings are counted and estimated without running them (`estimate_cost`). Those that may meet the limits are measured,
    the most promising ones first: those that are estimated to be the fastest for their score. The score is the encoder's prior
    score or, without a prior, the FLOPs. With data, candidates of many families are trained by successive halving: many for few
    steps, and the best of them further. Each stage is a run in the store. If the search is interrupted, a call with the same
    arguments goes on with it.

    Args:
        data: a folder of images/ and masks/, or the name of a task, to train candidates on; None to search by cost alone.
        encoders: ids or globs of the encoders to consider; by default all.
        decoders: ids or globs of the decoders to consider; by default all.
        size: the side length of a square image, or (H, W), in pixels; by default the size of the data's images, or 256.
        batch: the number of images per call.
        classes: the number of classes; by default that of the data, or 1.
        in_channels: the number of channels of the images; by default that of the data, or 3.
        max_latency: the longest time of a call, such as "50ms".
        max_memory: the largest peak memory, such as "1GiB".
        max_parameters: the largest number of parameters, such as "30M".
        max_flops: the largest number of FLOPs for one image, such as "20G".
        license: "permissive" for licenses such as MIT and Apache-2.0, or SPDX ids separated by commas. Pairings with a license
            that is not listed, or not stated, are dropped. Without it, every license is accepted.
        weights: the weights that encoders are trained from. "local": pretrained weights that are on this machine; other
            encoders are left out. "download": pretrained weights, which may be downloaded; encoders without any are left out.
            "random": random weights.
        prior: a CSV file with two columns, an encoder's id and a score such as its ImageNet accuracy. Larger is better.
        steps: the number of steps of the whole training; by default that of `zoo bench --quality`.
        minutes: how long the search may take; by default 10 minutes without data, and 60 minutes with data.
        seed: the seed of the first training of each candidate. The best ones are also trained with the next seeds.
        output: the folder of the search, which also gets the best trained model; by default a folder next to the store, whose
            name follows from the other arguments.
        device: as in `calibrate`.
        plugins: Python files that register further encoders or decoders.
        store: the SQLite file with the calibration, to which all measurements are added.
        ray: as in `zoo.bench`.

    Raises:
        StoreError: the store does not exist, or has no calibration of this device.
        UnknownIdError: no encoder or no decoder matches a pattern.
        OptionError: an argument is not valid, or no pairing meets the limits.
        DataError: the data cannot be used.
        ConfigError: the folder contains another search.

    Example:
        >>> zoo.calibrate()
        >>> print(zoo.search_pairings(size=512, max_latency="50ms", license="permissive"))
    """
    from zoo.benchmark.quality import QualityEntry
    from zoo.benchmark.running.identity import data_digest
    from zoo.benchmark.running.local import LocalProcesses
    from zoo.benchmark.running.progress import ConsoleWatcher
    from zoo.benchmark.running.ray.connect import ray_executor
    from zoo.benchmark.running.training_pass import load_data
    from zoo.common.configuration import checked
    from zoo.common.format_names import format_names
    from zoo.data.data_config import locate_data
    from zoo.registry.plugin_files import load_plugin_file
    from zoo.search.request import SearchRequest, parse_limits, read_prior
    from zoo.search.search import search

    for plugin in plugins:
        load_plugin_file(Path(plugin))
    limits = {"max_latency": max_latency, "max_memory": max_memory, "max_parameters": max_parameters, "max_flops": max_flops}
    quality, digest = None, ""
    if size is not None and not isinstance(size, int) and len(size) != 2:
        raise OptionError(f"size must be a side length or (H, W); found {size!r}.")
    side: tuple[int, int] | None = (size, size) if isinstance(size, int) else size
    if data is None and (steps is not None or seed or weights != "local"):
        raise OptionError("steps, seed and weights are about training. Give data to train on, or leave them out.")
    if data is not None:
        entry = {"data": locate_data(str(data), Path()), "budget": steps, "size": side}
        given = {name: value for name, value in entry.items() if value is not None}
        quality = checked(QualityEntry, given, "The data or the steps of the search are not valid").with_budget()
        opened_data = load_data(quality)
        for name, asked, found in (
            ("classes", classes, len(opened_data.classes)),
            ("in_channels", in_channels, opened_data.in_channels),
        ):
            if asked not in (None, found):
                raise OptionError(f"{name} is {asked}, but {opened_data.name} has {found}. Leave {name} out.")
        classes, in_channels = len(opened_data.classes), opened_data.in_channels
        side, digest = side or opened_data.size, data_digest(opened_data)
    height, width = side or (256, 256)
    scores, unknown = ({}, []) if prior is None else read_prior(Path(prior))
    request = SearchRequest(
        encoders=tuple(encoders),
        decoders=tuple(decoders),
        height=height,
        width=width,
        batch=batch,
        classes=1 if classes is None else classes,
        in_channels=3 if in_channels is None else in_channels,
        limits=parse_limits(limits),
        license=license,
        weights=weights,
        prior=scores,
        quality=quality,
        minutes=(60.0 if quality else 10.0) if minutes is None else minutes,
        seed=seed,
        device=device,
        plugins=tuple(str(Path(plugin).absolute()) for plugin in plugins),
    )
    with ConsoleWatcher() as watcher, closing(_open_calibrated(store, device)) as opened:
        if unknown:
            watcher.say(f"--prior: these ids are not used, since each names no encoder or several: {format_names(unknown)}.")
        make_executor = LocalProcesses if ray is None else ray_executor(ray, watcher.say)
        return search(request, opened, watcher, None if output is None else Path(output), make_executor, data=digest)


def _open_calibrated(store: str | PathLike[str], device: str) -> Store:
    """Open a store that must exist, since it contains the calibration of a device.

    Raises:
        StoreError: it does not exist, or cannot be opened.
    """
    from zoo.benchmark.store.store import Store
    from zoo.search.calibration import calibrate_command

    path = Path(store)
    if not os.path.lexists(path):
        raise StoreError(
            f"There is no results store {path}. `{calibrate_command(path, device)}` creates it, with a calibration."
        )
    return Store(path, must_exist=True)
