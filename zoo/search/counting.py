"""Count what pairings cost without running them. Each encoder, and each decoder for the same maps, is counted once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from zoo.benchmark.measuring.cost import LiveTensors
from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.operation import Operation, total_flops
from zoo.common.foreign_code import no_exits
from zoo.common.json_cache import JsonCache
from zoo.model.building import build_encoder, build_pairing
from zoo.model.parameters import count_parameters
from zoo.pairing.pairing import Pairing
from zoo.pairing.resolve import Resolved, resolve
from zoo.registry.discovery import LOCAL
from zoo.registry.library_versions import library_versions
from zoo.registry.registry import Entry

__all__ = ["PairingCost", "PairingCounter"]

Shape: TypeAlias = tuple[int, ...]
META = torch.device("meta")
KEY_VERSION = 1
"""The version of the kept counts. Increase it when the fields of `_Part`, or the way in which they are computed, change."""


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
class _Part:
    """What a part of a model costs: the encoder, or all that follows it.

    Attributes:
        weight_bytes: the size of the parameters and buffers.
        active_bytes: the peak size of all other tensors.
        shapes: the shapes of the maps that the encoder returns.
    """

    operations: Mapping[Operation, int]
    parameters: int
    weight_bytes: int
    active_bytes: int
    shapes: tuple[Shape, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the part as a JSON-serializable dictionary."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return facts | {"operations": [[*astuple(operation), calls] for operation, calls in self.operations.items()]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> _Part:
        """Return the part that `as_dict` converted to a dictionary."""
        names = [field.name for field in fields(Operation)]
        operations = {Operation(**dict(zip(names, each, strict=True))): calls for *each, calls in facts["operations"]}
        return cls(**{**facts, "operations": operations, "shapes": tuple(map(tuple, facts["shapes"]))})


class PairingCounter:
    """Counts pairings, and keeps the counts of their parts.

    An encoder is counted once for each image size, batch size and choice of maps. What follows the encoder (adapters, decoder
    and head) is counted once for each set of shapes that it receives, so that encoders with equal maps share the count.

    Args:
        cache: a file in which the counts of installed encoders and decoders are kept; None to keep all counts in memory only.
    """

    def __init__(self, cache: JsonCache | None = None) -> None:
        self._cache = cache
        self._parts: dict[str, _Part] = {}
        self._versions = library_versions()

    def count(self, pairing: Pairing, *, height: int, width: int, batch: int = 1) -> PairingCost:
        """Return what a call of the pairing's model costs.

        Raises:
            ZooError: the pairing cannot be built.
            Exception: the model raises an exception on the meta device.
        """
        resolved = resolve(replace(pairing, image_size=pairing.image_size or (height, width)))
        pairing, plan = resolved.pairing, resolved.plan
        done, size = plan.sizes.fit(height, width)
        image = (batch, pairing.in_channels, *size)
        encoder = self._part(
            resolved.encoder,
            [dict(pairing.encoder_options), dict(plan.encoder_options), plan.maps, plan.sizes.image_size, image],
            partial(_count_encoder, resolved, image),
        )
        whole = (batch, pairing.in_channels, height, width)
        routes = [
            (
                None if route.is_image else plan.maps.index(route.source.name),
                (route.output.channels, route.output.stride),
                [asdict(adapter) for adapter in route.adapters],
            )
            for route in plan.routes
        ]
        rest = self._part(
            resolved.decoder,
            [dict(pairing.decoder_options), pairing.classes, pairing.aux_levels, routes, encoder.shapes, done, image, whole],
            partial(_count_rest, resolved, encoder.shapes, whole),
        )
        weights, active = encoder.weight_bytes + rest.weight_bytes, max(encoder.active_bytes, rest.active_bytes)
        return PairingCost(
            operations=Counter(encoder.operations) + Counter(rest.operations),
            parameters=encoder.parameters + rest.parameters,
            peak_bytes=weights + active,
        )

    def _part(self, entry: Entry[Any], facts: Sequence[object], count: Callable[[], _Part]) -> _Part:
        """Return the count of a part: from memory, from the cache, or by counting it.

        Args:
            entry: the encoder or the decoder.
            facts: all else that the count depends on.
            count: the function that counts.
        """
        identity = [KEY_VERSION, entry.kind, entry.full_id, entry.distribution, entry.version, self._versions]
        key = json.dumps([*identity, *facts], default=str)
        if key in self._parts:
            return self._parts[key]
        is_kept = self._cache is not None and entry.plugin != LOCAL  # what a script registers has no version
        kept = self._cache.read(key) if self._cache and is_kept else None
        part = count() if kept is None else _Part.from_dict(kept)
        if self._cache and is_kept and kept is None:
            self._cache.keep(key, part.as_dict())
        self._parts[key] = part
        return part


def _count_encoder(resolved: Resolved, image: Shape) -> _Part:
    with META:
        encoder = build_encoder(resolved).eval()
    return _count(encoder, image)


def _count_rest(resolved: Resolved, shapes: Sequence[Shape], image: Shape) -> _Part:
    """Count a model whose encoder is replaced by a module that returns maps of these shapes."""
    spec = replace(resolved.encoder.spec, factory=partial(_Maps, shapes), constants={})
    with META:
        model = build_pairing(replace(resolved.pairing, weights=None), replace(resolved.encoder, spec=spec)).eval()
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
def _count(module: nn.Module, image: Shape) -> _Part:
    weights = LiveTensors(module).live
    live = LiveTensors(module)
    with torch.inference_mode(), OperationCounter() as counter, live:
        result = module(torch.empty(image, device=META))
    maps = result if isinstance(result, list | tuple) else ()
    return _Part(
        operations=counter.operations,
        parameters=count_parameters(module),
        weight_bytes=weights,
        active_bytes=live.peak - weights,
        shapes=tuple(tuple(each.shape) for each in maps),
    )
