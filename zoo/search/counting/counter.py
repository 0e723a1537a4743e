"""Count what pairings cost without running them. Each encoder, and each decoder for the same maps, is counted once."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.benchmark.measuring.cost import LiveTensors
from zoo.benchmark.measuring.failures import format_error
from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.trial import digest
from zoo.common.foreign_code import no_exits
from zoo.common.json_cache import JsonCache
from zoo.errors import PluginError
from zoo.model.building import build_encoder, build_pairing
from zoo.model.parameters import count_parameters
from zoo.pairing.pairing import Pairing
from zoo.pairing.resolve import Resolved, resolve
from zoo.registry.discovery import LOCAL, OWN_DISTRIBUTION
from zoo.registry.library_versions import library_versions
from zoo.registry.registry import Entry
from zoo.search.counting.fast_meta import FastMeta, is_channels_last
from zoo.search.counting.part import PairingCost, Part, Shape, peak_bytes

__all__ = ["PairingCounter", "PairingParts", "default_cache"]

META = torch.device("meta")
PASSING_ERRORS = (ImportError, OSError, MemoryError)
"""Exceptions whose cause may be the state of the machine, so that a later count may succeed."""
KEY_VERSION = 4
"""The version of the kept counts. Increase it when the fields of `Part`, or the way in which they are computed, change."""


def default_cache() -> Path:
    """Return the default file for counts: a file in the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path(OWN_DISTRIBUTION) / "counts.sqlite"


class PairingCounter:
    """Counts pairings, and keeps the counts of their parts.

    An encoder is counted once for each image size, batch size and choice of maps. What follows the encoder (adapters, decoder
    and head) is counted once for each set of shapes that it receives, so that encoders with equal maps share the count.

    Args:
        cache: a file in which the counts of installed encoders and decoders are kept; None to keep all counts in memory only.
    """

    def __init__(self, cache: JsonCache | None = None) -> None:
        self.cache = cache
        self.versions = library_versions()
        self._sources: dict[str, str] = {}
        self._parts: dict[str, Part | Exception] = {}

    def count(self, pairing: Pairing, *, height: int, width: int, batch: int = 1) -> PairingCost:
        """Return what a call of the pairing's model costs.

        Raises:
            ZooError: the pairing cannot be built.
            Exception: the model raises an exception on the meta device.
        """
        parts = self.parts(pairing, height=height, width=width, batch=batch)
        encoder, rest = parts.encoder, parts.rest
        return PairingCost(
            operations=Counter(encoder.operations) + Counter(rest.operations),
            parameters=encoder.parameters + rest.parameters,
            peak_bytes=peak_bytes([encoder, rest]),
        )

    def parts(self, pairing: Pairing, *, height: int, width: int, batch: int = 1) -> PairingParts:
        """Return the two parts of a pairing. Each is counted only when it is requested.

        Raises:
            ZooError: no plan can be made.
        """
        return PairingParts(self, pairing, (batch, pairing.in_channels, height, width))

    def is_counted(self, key: str) -> bool:
        """Return whether a part need not be counted again: it was counted, or its count failed."""
        if key not in self._parts and (kept := self.cache.read(key) if self.cache else None) is not None:
            self._parts[key] = PluginError(kept["error"]) if "error" in kept else replace(Part.from_dict(kept), key=key)
        return key in self._parts

    def is_known(self, key: str) -> bool:
        """Return whether a part was counted without an error."""
        return self.is_counted(key) and self.error_of(key) is None

    def error_of(self, key: str) -> Exception | None:
        """Return why a part cannot be counted; None if it was counted."""
        found = self._parts[key]
        return found if isinstance(found, Exception) else None

    def source_of(self, entry: Entry[Any]) -> str:
        """Return a digest of the files of the package that contains an entry's factory.

        A plugin that is being developed changes without a new version.
        """
        factory = entry.spec.factory
        module = factory.partition(":")[0] if isinstance(factory, str) else getattr(factory, "__module__", "")
        package = module.partition(".")[0]
        if package not in self._sources:
            self._sources[package] = _digest_of_files(package)
        return self._sources[package]

    def put(self, key: str, part: Part) -> None:
        """Remember the count of a part that another process counted."""
        self._parts[key] = replace(part, key=key)

    def fail(self, key: str, error: Exception) -> None:
        """Remember that a part cannot be counted. If it is requested, the error is raised."""
        self._parts[key] = error

    def find(self, key: str, count: Callable[[], Part], *, is_lasting: bool) -> Part:
        """Return the count of a part: from memory, from the cache, or by counting it.

        Args:
            key: everything that the count depends on, as text.
            count: the function that counts.
            is_lasting: whether the key identifies the part in other processes, so that the count may be kept in the cache.
        """
        if not self.is_counted(key):
            try:
                part = self._parts[key] = replace(count(), key=key)
            except Exception as cause:
                self.fail(key, cause)
                if self.cache and is_lasting and not isinstance(cause, PASSING_ERRORS):
                    self.cache.keep(key, {"error": format_error(cause)})
                raise
            if self.cache and is_lasting:
                self.cache.keep(key, part.as_dict())
        found = self._parts[key]
        if isinstance(found, Exception):
            raise found
        return found


class PairingParts:
    """The two parts of a pairing: the encoder, and all that follows it. Each is counted when it is first requested.

    Args:
        counter: the counter.
        pairing: the pairing.
        image: the shape of the batch of images: (batch, channels, height, width).
    """

    def __init__(self, counter: PairingCounter, pairing: Pairing, image: Shape) -> None:
        self.pairing = pairing
        self._counter = counter
        self._image = image
        # Weights change no count, and are not loaded.
        self._resolved = resolve(replace(pairing, weights=None, image_size=pairing.image_size or (image[2], image[3])))
        self._policy, size = self._resolved.plan.sizes.fit(image[2], image[3])
        self._fitted = (*image[:2], *size)

    def as_dict(self) -> dict[str, Any]:
        """Return the keyword arguments of `PairingCounter.parts` as JSON-serializable data."""
        batch, _, height, width = self._image
        return {"pairing": self.pairing.as_dict(), "height": height, "width": width, "batch": batch}

    def needs_this_process(self, from_files: Collection[tuple[str, str]]) -> bool:
        """Return whether only this process can build the pairing, since a script or notebook registered a part of it.

        Args:
            from_files: the kind and the name of each encoder and decoder that other processes can load from plugin files.
        """
        entries: tuple[Entry[Any], ...] = (self._resolved.encoder, self._resolved.decoder)
        return any(entry.plugin == LOCAL and (entry.kind, entry.spec.name) not in from_files for entry in entries)

    @cached_property
    def encoder_key(self) -> str:
        """Everything that the encoder's count depends on."""
        pairing, plan = self._resolved.pairing, self._resolved.plan
        options = [dict(pairing.encoder_options), dict(plan.encoder_options)]
        return self._key(self._resolved.encoder, [*options, plan.maps, plan.sizes.image_size, self._fitted])

    @property
    def encoder(self) -> Part:
        """The count of the encoder. If the image is padded or resized for it, the memory of the image itself is included."""
        is_lasting = self._resolved.encoder.plugin != LOCAL  # what a script registers has no version
        count = partial(_count_encoder, self._resolved, self._fitted)
        found = self._counter.find(self.encoder_key, count, is_lasting=is_lasting)
        image_bytes = 0 if self._fitted == self._image else math.prod(self._image) * torch.float32.itemsize
        return replace(found, active_bytes=found.active_bytes + image_bytes)

    @cached_property
    def rest_key(self) -> str:
        """Everything that the count of the rest depends on. The shapes of the maps come from the count of the encoder."""
        pairing, plan = self._resolved.pairing, self._resolved.plan
        routes = [
            (
                None if route.is_image else plan.maps.index(route.source.name),
                (route.output.channels, route.output.stride),
                [asdict(adapter) for adapter in route.adapters],
            )
            for route in plan.routes
        ]
        options = [dict(pairing.decoder_options), pairing.classes, pairing.aux_levels]
        sizes = [self.encoder.shapes, self.encoder.channels_last, self._policy, self._fitted, self._image]
        return self._key(self._resolved.decoder, [*options, routes, *sizes])

    @property
    def rest(self) -> Part:
        """The count of all that follows the encoder."""
        is_lasting = self._resolved.decoder.plugin != LOCAL
        count = partial(_count_rest, self._resolved, self.encoder, self._image)
        return self._counter.find(self.rest_key, count, is_lasting=is_lasting)

    def _key(self, entry: Entry[Any], facts: Sequence[object]) -> str:
        plugin = [entry.distribution, entry.version, self._counter.source_of(entry)]
        identity = [KEY_VERSION, entry.kind, entry.full_id, *plugin, self._counter.versions]
        return json.dumps([*identity, *facts], default=str)


def _digest_of_files(package: str) -> str:
    """Return a digest of the sizes and the times of change of a package's Python files; "" if there are no such files."""
    try:
        spec = find_spec(package) if package else None
    except (ImportError, ValueError):  # for example, __main__ has no spec
        spec = None
    if spec is None:
        return ""
    in_folders = [file for folder in spec.submodule_search_locations or () for file in sorted(Path(folder).rglob("*.py"))]
    files = [file for file in in_folders or [Path(spec.origin or "")] if file.is_file()]
    return digest([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]) if files else ""


def _count_encoder(resolved: Resolved, image: Shape) -> Part:
    with META, FastMeta():
        encoder = build_encoder(resolved).eval()
    return _count(encoder, image)


def _count_rest(resolved: Resolved, encoder: Part, image: Shape) -> Part:
    """Count a model whose encoder is replaced by a module that returns maps as the counted encoder does."""
    spec = replace(resolved.encoder.spec, factory=partial(_Maps, encoder), constants={})
    with META, FastMeta():
        model = build_pairing(resolved.pairing, replace(resolved.encoder, spec=spec)).eval()
    return _count(model, image)


class _Maps(nn.Module):
    """Takes the place of an encoder: returns maps of the right shapes and memory formats, and computes nothing."""

    def __init__(self, counted: Part, **options: object) -> None:
        super().__init__()
        formats = [torch.channels_last if each else torch.contiguous_format for each in counted.channels_last]
        self.maps = list(zip(counted.shapes, formats, strict=True))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps."""
        return [torch.empty(shape, device=image.device, memory_format=format) for shape, format in self.maps]


@no_exits("A call of the model")
def _count(module: nn.Module, image: Shape) -> Part:
    weights = LiveTensors(module).live
    live = LiveTensors(module)
    with torch.inference_mode(), FastMeta(), OperationCounter() as counter, live:
        result = module(torch.empty(image, device=META))
    maps = result if isinstance(result, list | tuple) else ()
    storages = {storage._cdata: storage.nbytes() for each in tree_leaves(result) for storage in [each.untyped_storage()]}
    # Some modules keep tensors that they compute in the first call, which count as weights.
    weights += max(0, live.live - weights - sum(storages.values()))
    return Part(
        operations=counter.operations,
        parameters=count_parameters(module),
        weight_bytes=weights,
        active_bytes=live.peak - weights,
        shapes=tuple(tuple(each.shape) for each in maps),
        channels_last=tuple(map(is_channels_last, maps)),
    )
