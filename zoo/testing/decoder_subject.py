"""A decoder under test. It is built for synthetic pyramids, either alone (by its factory) or as part of a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zoo.common.options import Options
from zoo.model.building import build_pairing, decoder_keywords
from zoo.model.model import SegmentationModel
from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.image_sizes import Size
from zoo.registry.pyramid import Pyramid
from zoo.registry.registry import Kind, default_registry
from zoo.testing.report import Finding
from zoo.testing.stubs import stub_encoder
from zoo.testing.subject import Subject, call_factory, call_seeded, snapshot_facts
from zoo.testing.synthetic import features, usual_plans

__all__ = ["DecoderSubject"]

SIZE, OTHER_SIZE = (64, 96), (96, 160)
CLASSES = 3


class DecoderSubject(Subject):
    """A registered decoder, with the options that it is checked with."""

    kind: Kind = "decoder"

    def __init__(self, id: str, options: Mapping[str, Any] | None = None) -> None:
        self.id = id
        self.entry = default_registry().decoder(id)
        self.options = Options(options)
        self.first_seen = snapshot_facts(self.entry)
        self.needs = self.entry.needs(self.options)

    @cached_property
    def plans(self) -> list[Plan]:
        """One plan for each synthetic pyramid of `LADDERS` that meets the decoder's needs, in the order of `LADDERS`."""
        return usual_plans(self.needs)

    def build(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        plan: Plan | None = None,
        classes: int = CLASSES,
    ) -> nn.Module:
        """Build a new module for a plan (by default `plans[0]`). `classes` is used only if the decoder makes the logits."""
        chosen = self.options if options is None else options
        given = decoder_keywords(self.entry.spec, classes)
        return call_factory(self.entry, seed, (plan or self.plans[0]).pyramid, **given, **self.entry.spec.constants, **chosen)

    def build_differently(self) -> nn.Module:
        """Build a module for the pyramid of the last plan, `plans[-1]`."""
        return self.build(plan=self.plans[-1])

    def model(self, classes: int = CLASSES, plan: Plan | None = None) -> SegmentationModel:
        """Build a model with a stub encoder that returns the source maps of a plan (by default `plans[0]`)."""
        encoder = stub_encoder(_source(plan or self.plans[0]))
        pairing = Pairing(encoder.full_id, self.id, classes=classes, decoder_options=self.options)
        return build_pairing(pairing, encoder)

    def inputs(self, batch: int = 2, *, other: bool = False, seed: int = 0) -> list[Tensor]:
        """Return random maps with the shapes of the first plan's pyramid (`plans[0]`). With `other`, the image is larger."""
        return features(self.plans[0], OTHER_SIZE if other else SIZE, batch, seed=seed)

    def features(self, plan: Plan, seed: int = 0) -> list[Tensor]:
        """Return random maps with the shapes of a plan's pyramid, for an image of `SIZE`."""
        return features(plan, SIZE, seed=seed)

    def outputs(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Run a module and return a list with its output map. Raise a `Finding` if the output is not a single map."""
        output = call_seeded(module, list(inputs))
        if not isinstance(output, Tensor) or output.ndim != 4:
            found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise Finding(
                expected="forward(features) returns one tensor (N, out_channels, h, w)",
                found=found,
                remedy="return only the map that the head receives",
            )
        return [output]

    def shape(self, module: nn.Module, plan: Plan, size: Size, batch: int = 2) -> tuple[int, ...]:
        """Return the shape of a module's output for an image of this size, computed on torch's default device."""
        device = str(torch.get_default_device())
        with torch.no_grad():
            return tuple(self.outputs(module, features(plan, size, batch, device=device))[0].shape)


def _source(plan: Plan) -> Pyramid:
    sources = {route.source.name: route.source for route in plan.routes if not route.is_image}
    sources |= {entry.source.name: entry.source for entry in plan.unused}
    return tuple(sorted(sources.values(), key=lambda entry: (entry.stride, entry.name)))
