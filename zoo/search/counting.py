"""Count what pairings cost without running them. Each encoder, and each decoder for the same maps, is counted once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from zoo.benchmark.measuring.cost import LiveTensors
from zoo.benchmark.measuring.failures import format_error
from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.operation import Operation, total_flops
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
from zoo.search.fast_meta import FastMeta

__all__ = ["PairingCost", "PairingCounter", "PairingParts", "Part", "default_cache", "peak_bytes"]

Shape: TypeAlias = tuple[int, ...]
META = torch.device("meta")
PASSING_ERRORS = (ImportError, OSError, MemoryError)
"""Exceptions whose cause may be the state of the machine, so that a later count may succeed."""
KEY_VERSION = 2
"""The version of the kept counts. Increase it when the fields of `Part`, or the way in which they are computed, change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingCost:
    """What a call of a model in inference costs, as counted.

    Attributes:
        operations: a mapping from each operation to the number of its calls.
        parameters: the number of parameters.
        peak_bytes: the peak size of all live tensors: weights, image and activations.
    """

    operations: Mapping[Operation, int]
    parameters: int
    peak_bytes: int

    @property
    def flops(self) -> int:
        """The FLOPs of the call."""
        return total_flops(self.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part of a model costs: the encoder, or all that follows it.

    Attributes:
        key: everything that the count depends on, as text.
        operations: a mapping from each operation to the number of its calls.
        parameters: the number of parameters.
        weight_bytes: the size of the parameters and buffers.
        active_bytes: the peak size of all other tensors.
        shapes: the shapes of the maps that the encoder returns.
    """

    key: str = ""
    operations: Mapping[Operation, int]
    parameters: int
    weight_bytes: int
    active_bytes: int
    shapes: tuple[Shape, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the part without its key as a JSON-serializable dictionary."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "key"}
        return facts | {"operations": [[*astuple(operation), calls] for operation, calls in self.operations.items()]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Part:
        """Return the part that `as_dict` converted to a dictionary."""
        names = [field.name for field in fields(Operation)]
        operations = {Operation(**dict(zip(names, each, strict=True))): calls for *each, calls in facts["operations"]}
        return cls(**{**facts, "operations": operations, "shapes": tuple(map(tuple, facts["shapes"]))})


def peak_bytes(parts: Sequence[Part]) -> int:
    """Return the peak size of all live tensors of a model that consists of these parts."""
    return sum(part.weight_bytes for part in parts) + max(part.active_bytes for part in parts)


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
        return self.is_counted(key) and isinstance(self._parts[key], Part)

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

    @property
    def is_local(self) -> bool:
        """Whether a script or notebook registered the encoder or the decoder, so that only this process can build them."""
        return LOCAL in (self._resolved.encoder.plugin, self._resolved.decoder.plugin)

    @cached_property
    def encoder_key(self) -> str:
        """Everything that the encoder's count depends on."""
        pairing, plan = self._resolved.pairing, self._resolved.plan
        options = [dict(pairing.encoder_options), dict(plan.encoder_options)]
        return self._key(self._resolved.encoder, [*options, plan.maps, plan.sizes.image_size, self._fitted])

    @property
    def encoder(self) -> Part:
        """The count of the encoder."""
        is_lasting = self._resolved.encoder.plugin != LOCAL  # what a script registers has no version
        count = partial(_count_encoder, self._resolved, self._fitted)
        return self._counter.find(self.encoder_key, count, is_lasting=is_lasting)

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
        sizes = [self.encoder.shapes, self._policy, self._fitted, self._image]
        return self._key(self._resolved.decoder, [*options, routes, *sizes])

    @property
    def rest(self) -> Part:
        """The count of all that follows the encoder."""
        is_lasting = self._resolved.decoder.plugin != LOCAL
        count = partial(_count_rest, self._resolved, self.encoder.shapes, self._image)
        return self._counter.find(self.rest_key, count, is_lasting=is_lasting)

    def _key(self, entry: Entry[Any], facts: Sequence[object]) -> str:
        identity = [KEY_VERSION, entry.kind, entry.full_id, entry.distribution, entry.version, self._counter.versions]
        return json.dumps([*identity, *facts], default=str)


def _count_encoder(resolved: Resolved, image: Shape) -> Part:
    with META, FastMeta():
        encoder = build_encoder(resolved).eval()
    return _count(encoder, image)


def _count_rest(resolved: Resolved, shapes: Sequence[Shape], image: Shape) -> Part:
    """Count a model whose encoder is replaced by a module that returns maps of these shapes."""
    spec = replace(resolved.encoder.spec, factory=partial(_Maps, shapes), constants={})
    with META, FastMeta():
        model = build_pairing(resolved.pairing, replace(resolved.encoder, spec=spec)).eval()
    return _count(model, image)


class _Maps(nn.Module):
    """Takes the place of an encoder: returns maps of the right shapes, and computes nothing."""

    def __init__(self, shapes: Sequence[Shape], **options: object) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps."""
        return [image.new_empty(shape) for shape in self.shapes]


@no_exits("A call of the model")
def _count(module: nn.Module, image: Shape) -> Part:
    weights = LiveTensors(module).live
    live = LiveTensors(module)
    with torch.inference_mode(), FastMeta(), OperationCounter() as counter, live:
        result = module(torch.empty(image, device=META))
    maps = result if isinstance(result, list | tuple) else ()
    return Part(
        operations=counter.operations,
        parameters=count_parameters(module),
        weight_bytes=weights,
        active_bytes=live.peak - weights,
        shapes=tuple(tuple(each.shape) for each in maps),
    )
