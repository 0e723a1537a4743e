"""Probe any nn.Module: measure its feature maps at two image sizes, and make an encoder of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo.common.foreign_code import no_exits
from zoo.errors import NegotiationError, OptionError, PluginError, WeightsError
from zoo.model.probing.extraction import cut
from zoo.model.probing.map_checks import check_complete, check_gradients, check_shapes, check_strides
from zoo.model.probing.measurement import preserve_state, run
from zoo.model.probing.observation import Observation
from zoo.model.probing.pruning import prune_unused
from zoo.model.probing.recording import RecordedEncoder
from zoo.model.probing.sightings import Sighting, select_maps
from zoo.model.probing.traced_maps import trace_maps
from zoo.model.probing.tracing import Traced
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.specs import EncoderSpec, Preprocessing

__all__ = ["ProbedFactory", "probe"]


@no_exits("Measuring a module")
def probe(module: nn.Module, *, in_channels: int = 3, image_size: tuple[int, int] | None = None) -> EncoderSpec:
    """Measure the feature maps that a module computes, and return the module as an encoder spec.

    If the module's forward returns several maps, these are the encoder's maps. Otherwise, the encoder has one map for each
    power-of-two stride: zoo looks at the shallowest depth of submodules that has a map of this stride, and takes the last map
    there.

    Tokens (N, L, C) count as a map if the module, or a module inside it, declares their order with `num_prefix_tokens` and
    `patch_size` (its own or that of its `patch_embed`). The spatial axes are found with two images that differ in H and in W,
    so NHWC maps are recognized as well.

    The module is measured on the meta device, which computes shapes but no values, and then verified on random images with
    values. If it does not run on the meta device, it is measured on small random images. The module's modes, buffers, gradients
    and hooks do not change, and neither does the random state.

    The encoder that the spec's factory builds shares the module's own submodules and weights. It is a plain
    `torch.fx.GraphModule` if the module's forward can be traced, and otherwise a `RecordedEncoder`. The docstring of
    `RecordedEncoder` lists its limits.

    Args:
        module: a module that takes one image batch (N, in_channels, H, W), at any H and W or at `image_size`. If its
            `preprocessing` is a `zoo.Preprocessing`, the encoder has it too.
        in_channels: the number of channels of the module's images.
        image_size: the (H, W) of a module that takes a single size. A tensor is then recognized as a map only if it is an input
            or output of an operation on (N, C, H, W), such as a convolution or a pooling. The argument has no effect on a
            module that takes images of any size.

    Raises:
        PluginError: the module raises an error at every size tried, is compiled or wrapped, or has hooks or lazy parameters.
        NegotiationError: the module computes no feature map, or the maps found leave out parameters that its last map or its
            tokens depend on.
    """
    owner = type(module).__name__
    for path, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule | nn.DataParallel | nn.parallel.DistributedDataParallel):
            where = f" at {path}" if path else ""
            raise PluginError(
                f"{type(submodule).__name__}{where} hides the modules inside. Pass the plain module that it was made from."
            )
    if compiled := _compiled_path(module):
        raise PluginError(
            f"{owner} is compiled{compiled}, but the maps of a compiled module cannot be measured. Pass the plain module (the "
            "argument of torch.compile, `module._orig_mod`), and compile the whole model: torch.compile(zoo.build(...))."
        )
    if module._forward_hooks or module._backward_hooks:
        raise PluginError(
            f"{owner} has hooks on its own forward or backward pass, which an encoder of its maps would not run. Remove them, "
            "or register them on the submodules that return the maps."
        )
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters()):
        raise PluginError(f"{owner} has lazy parameters, which have no shape yet. First call it once on an image.")
    with preserve_state(module):
        return _spec_of(Observation(module, in_channels, image_size))


class ProbedFactory:
    """The encoder factory of a probed module. It takes the same keywords as every encoder factory."""

    def __init__(
        self,
        module: nn.Module,
        in_channels: int,
        maps: Sequence[Sighting],
        traced: Traced | None,
        fixed: tuple[int, int] | None = None,
        *,
        are_returned: bool = False,
    ) -> None:
        self.module = module
        self.in_channels = in_channels
        self._fixed = fixed
        self._sightings = {sighting.name: sighting for sighting in maps}
        self._traced = traced
        self._are_returned = are_returned

    def __call__(self, *, maps: Sequence[str], in_channels: int = 3, weights: Any = None) -> nn.Module:
        """Return an encoder that computes these maps. It shares the module's parameters.

        Raises:
            OptionError: the module was probed with another number of channels, or does not have one of the maps.
            WeightsError: `weights` is not None.
        """
        owner = type(self.module).__name__
        if weights is not None:
            raise WeightsError(f"{owner} is a module and brings its own weights. weights= must be None; found {weights!r}.")
        if in_channels != self.in_channels:
            raise OptionError(
                f"{owner} takes images of {self.in_channels} channels, but in_channels={in_channels} was requested. Pass "
                f"in_channels={self.in_channels}, or change the module's first layer."
            )
        if unknown := [name for name in maps if name not in self._sightings]:
            raise OptionError(f"{owner} has no map {', '.join(unknown)}. Its maps: {', '.join(self._sightings)}.")
        chosen = [self._sightings[name] for name in maps]
        sources = [sighting.source for sighting in chosen]
        layouts = [sighting.layout for sighting in chosen]
        encoder: nn.Module
        with preserve_state(self.module):
            if self._traced is not None:
                encoder = cut(self._traced, sources, layouts, self.module, are_returned=self._are_returned)
            else:
                encoder = RecordedEncoder(self.module, sources, layouts)
            encoder = prune_unused(encoder, self.in_channels, self._fixed)
        preprocessing = getattr(self.module, "preprocessing", None)
        if isinstance(preprocessing, Preprocessing):
            encoder.preprocessing = preprocessing  # type: ignore[assignment]
        return encoder


def _spec_of(observation: Observation) -> EncoderSpec:
    """Return the observed module as an encoder spec."""
    module, owner, in_channels = observation.module, observation.owner, observation.in_channels
    returned = observation.returned_maps()
    needed = observation.returned_parameters() if returned else observation.last_parameters()
    traced, maps = trace_maps(observation, returned, needed)
    recorded_maps = returned or select_maps(observation.recorded_maps(), needed)
    # The graph is used only if it has a map of every level that was found in the runs of the module.
    if traced is None or not {entry.level for entry in maps} >= {entry.level for entry in recorded_maps}:
        traced, maps = None, recorded_maps
    check_complete(observation, maps, needed)
    check_strides(observation, maps)
    if not maps:
        tried = " and ".join(f"{height} x {width}" for height, width in dict.fromkeys(observation.sizes))
        raise NegotiationError(
            f"{owner} was probed with images of {in_channels} channels at {tried}, but no feature map was found: "
            + (
                "no 4-D tensor that depends on its parameters has two axes that grow with H and W."
                if observation.fixed is None
                else "at a single image size, a map is recognized only if a convolution, pooling or another operation on "
                "(N, C, H, W) computes it, and there is none."
            )
        )
    maps = sorted(maps, key=lambda sighting: sighting.layout.stride)
    name = re.sub(r"[^A-Za-z0-9_.+-]", "-", owner).lstrip("_.+-") or "module"
    factory = ProbedFactory(module, in_channels, maps, traced, observation.fixed, are_returned=bool(returned))
    encoder = factory(maps=[sighting.name for sighting in maps], in_channels=in_channels)
    check_gradients(observation, encoder, maps)
    check_shapes(observation, encoder, maps)
    return EncoderSpec(
        name=name,
        factory=factory,
        pyramid=tuple(sighting.as_map() for sighting in maps),
        sizes=_image_sizes(observation, encoder, maps),
        options=(),
    )


def _image_sizes(observation: Observation, encoder: nn.Module, maps: Sequence[Sighting]) -> ImageSizes:
    """Return the image sizes that the encoder of these maps accepts, found by running it on some sizes.

    Only multiples of the coarsest map's stride are tried, since a model always pads images to such a multiple.
    """
    if observation.fixed is not None:
        return ImageSizes(fixed=observation.fixed)
    patches = [side for sighting in maps if sighting.layout.tokens for side in sighting.layout.tokens.patch_size]
    patch = max(patches, default=1)
    step = patch if patches else 2 ** max(sighting.level for sighting in maps)
    height, width = observation.sizes[0]

    def takes(rows: int, columns: int) -> bool:
        try:
            run(encoder, (rows, columns), observation.in_channels, on_meta=observation.on_meta)
        except Exception:  # noqa: BLE001 (the encoder refuses this size)
            return False
        return True

    multiple = step
    while multiple < math.gcd(height, width) and not takes(_odd(height, multiple), _odd(width, multiple)):
        multiple *= 2
    minimum = multiple
    while minimum < min(height, width) and not takes(minimum, minimum):
        minimum += multiple
    return ImageSizes(multiple=patch if multiple == step else multiple, minimum=1 if minimum == multiple else minimum)


def _odd(length: int, multiple: int) -> int:
    """Return the largest `multiple * n`, with odd n, that is at most `length`; `multiple` if `length` is smaller."""
    count = length // multiple
    return multiple * max(1, count - 1 + count % 2)


def _compiled_path(module: nn.Module) -> str | None:
    """Return text on where the first module compiled by torch.compile or `Module.compile` is; None if no module is compiled."""
    for path, submodule in module.named_modules():
        if "_orig_mod" in submodule._modules or getattr(submodule, "_compiled_call_impl", None) is not None:
            return f" at {path}" if path else " as a whole"
    return None
