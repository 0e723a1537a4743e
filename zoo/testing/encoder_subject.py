"""An encoder under test. It is built either alone (by its factory), for chosen maps and image sizes, or as part of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zoo.common.options import Options
from zoo.model.building import build_pairing
from zoo.model.model import SegmentationModel
from zoo.pairing.pairing import Pairing
from zoo.pairing.size_plan import SizePlan, plan_sizes
from zoo.registry.image_sizes import Size
from zoo.registry.registry import Kind, default_registry
from zoo.testing.report import Finding
from zoo.testing.stubs import stub_decoder
from zoo.testing.subject import Subject, call_factory, call_seeded, snapshot_facts
from zoo.testing.surroundings import make_generator

__all__ = ["EncoderSubject"]

SIZES = ((64, 96), (96, 160), (128, 224), (256, 288), (320, 448), (512, 704))
"""The image sizes to try. Each is padded or resized to a size that the encoder accepts.

An encoder is checked at the first of the resulting sizes, and at the next one that is larger along both axes."""


class EncoderSubject(Subject):
    """A registered encoder, with the options that it is checked with."""

    kind: Kind = "encoder"

    def __init__(self, id: str, options: Mapping[str, Any] | None = None) -> None:
        self.id = id
        self.entry = default_registry().encoder(id)
        self.options = Options(options)
        self.first_seen = snapshot_facts(self.entry)
        self.pyramid = self.entry.pyramid(self.options)
        self.sizes = self.entry.sizes(self.options)
        self.seen: dict[Size, list[Tensor]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all maps, fine to coarse."""
        return tuple(entry.name for entry in self.pyramid)

    @cached_property
    def size(self) -> Size:
        """The smallest image size for which the encoder is built and run."""
        return self.taken(SIZES[0])

    @cached_property
    def other_size(self) -> Size | None:
        """An image size that is larger than `size` along both axes; None if the encoder accepts only one size.

        The encoder may have to be built again for this size.
        """
        larger = (self.taken(size) for size in SIZES[1:])
        return next((size for size in larger if size[0] > self.size[0] and size[1] > self.size[1]), None)

    @property
    def is_of_one_size(self) -> bool:
        """Whether a built encoder accepts images of one size only."""
        return self.sizes.fixed is not None

    def plan(self, size: Size) -> SizePlan:
        """Return the plan for images of this size: how a model pads or resizes them for the encoder."""
        coarsest = max(entry.stride for entry in self.pyramid)
        multiple = int(coarsest) if coarsest == int(coarsest) else 2 ** math.ceil(math.log2(coarsest))
        asked = size if self.sizes.adapts else None
        return plan_sizes(self.sizes, size_multiple=multiple, image_size=asked, policy="auto")

    def taken(self, size: Size) -> Size:
        """Return the size to which an image of this size is padded or resized before the encoder receives it."""
        return self.plan(size).fit(*size)[1]

    def build(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        maps: Sequence[str] | None = None,
        in_channels: int = 3,
        size: Size | None = None,
    ) -> nn.Module:
        """Build a new module for these maps (by default all) and this image size (by default `self.size`)."""
        given: dict[str, Any] = {"maps": tuple(maps or self.names), "in_channels": in_channels, "weights": None}
        if self.sizes.adapts:
            given["image_size"] = self.plan(size or self.size).image_size
        return call_factory(
            self.entry, seed, **given, **self.entry.spec.constants, **(self.options if options is None else options)
        )

    def build_differently(self) -> nn.Module:
        """Build a module that returns only the finest map, for images of 2 channels."""
        return self.build(maps=self.names[:1], in_channels=2)

    def model(self, classes: int = 3) -> SegmentationModel:
        """Build a model with a stub decoder."""
        decoder = stub_decoder()
        size = self.size if self.sizes.adapts else None
        pairing = Pairing(self.id, decoder.full_id, classes=classes, encoder_options=self.options, image_size=size)
        return build_pairing(pairing, decoder=decoder)

    def inputs(self, batch: int = 2, *, other: bool = False, seed: int = 0) -> list[Tensor]:
        """Return a list with one batch of random images.

        With `other`, the images have the size `other_size` instead of `size`, if a built encoder accepts several sizes.
        """
        size = self.other_size if other and not self.is_of_one_size else None
        return [torch.rand(batch, 3, *(size or self.size), generator=make_generator(seed))]

    def outputs(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Run a module and return its maps."""
        return maps_in(call_seeded(module, inputs[0]))

    def shapes(self, module: nn.Module, size: Size, batch: int = 2, in_channels: int = 3) -> list[Tensor]:
        """Run a module on black images of this size, on torch's default device, and return its maps."""
        with torch.no_grad():
            return maps_in(call_seeded(module, torch.zeros(batch, in_channels, *size, device=torch.get_default_device())))


def maps_in(output: Any) -> list[Tensor]:
    """Return an encoder's output as a list; raise a `Finding` if it is not a list of tensors."""
    if not isinstance(output, list | tuple) or not all(isinstance(entry, Tensor) for entry in output):
        raise Finding(
            expected="forward(image) returns a list of tensors, one for each requested map",
            found=type(output).__name__,
            remedy="return the maps as a list, fine to coarse",
        )
    return list(output)
