"""The pyramid of any nn.Module: its maps measured at two image sizes, and the encoder that gives them."""

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
    """Measure the feature maps that a module computes, and return it as an encoder spec.

    Where its forward returns several maps, it is those. Otherwise it is the last map at each power-of-two stride, taken
    from the shallowest depth of modules that shows the stride. Tokens (N, L, C) are a map where the module, or a module inside
    it, declares their order by `num_prefix_tokens` and `patch_size` (its own or its `patch_embed`'s). Two images that differ
    in H and in W tell the spatial axes, so NHWC maps are known for what they are. All runs on the meta device, or on small
    images where the module cannot; its modes, buffers, gradients, hooks and the random state stay as they were.

    The factory's encoder shares the module's own submodules and weights. It is a plain `torch.fx.GraphModule` where the
    module's forward can be traced, else a `RecordedEncoder`, whose docstring says what that cannot do.

    Args:
        module: takes one image batch (N, in_channels, H, W), at any H and W or at `image_size`. If its `preprocessing` is a
            `zoo.Preprocessing`, the encoder has it too.
        in_channels: how many channels its images have.
        image_size: (H, W) that a module of one size takes. At one size nothing grows with the image, so that a map is only
            what an operation on (N, C, H, W) takes or gives, such as a convolution or a pooling. It changes nothing for
            a module that takes images of any size.

    Raises:
        PluginError: the module raised for each size tried, takes one image size only and not `image_size`, or has lazy
            parameters.
        NegotiationError: nothing that it computes is a feature map, or the maps found leave out parameters that its last map or
            its tokens depend on.
    """
    owner = type(module).__name__
    for path, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule | nn.DataParallel | nn.parallel.DistributedDataParallel):
            where = f" at {path}" if path else ""
            raise PluginError(
                f"{type(submodule).__name__}{where} hides the modules inside; give the plain module that it was made from."
            )
    if compiled := _compiled_path(module):
        raise PluginError(
            f"{owner} is compiled{compiled}, and the maps of a compiled module cannot be measured. Give the plain module (what "
            "torch.compile was called with: `module._orig_mod`), and compile the model: torch.compile(zoo.build(...))."
        )
    if module._forward_hooks or module._backward_hooks:
        raise PluginError(
            f"{owner} has hooks on what its own forward returns, which an encoder of its maps does not compute. Remove them, "
            "or register them on the submodules that return the maps."
        )
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters()):
        raise PluginError(f"{owner} has lazy parameters without a shape; call it once on an image before it is probed.")
    with preserve_state(module):
        return _spec_of(Observation(module, in_channels, image_size))


class ProbedFactory:
    """Makes a probed module's encoder; its keywords are what every encoder factory takes."""

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
        """Return the encoder of these maps; it shares the module's parameters.

        Raises:
            OptionError: other channels than the module was probed with, or a map it does not give.
            WeightsError: weights other than None.
        """
        owner = type(self.module).__name__
        if weights is not None:
            raise WeightsError(f"{owner} is a module and brings its own weights; weights= must be None, found {weights!r}.")
        if in_channels != self.in_channels:
            raise OptionError(
                f"{owner} takes images of {self.in_channels} channels, but in_channels={in_channels} was requested; pass "
                f"in_channels={self.in_channels}, or change the module's first layer."
            )
        if unknown := [name for name in maps if name not in self._sightings]:
            raise OptionError(f"{owner} gives no map {', '.join(unknown)}. Its maps: {', '.join(self._sightings)}.")
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
    # A graph is used only where it shows each level that the module's own calls show.
    if traced is None or not {entry.level for entry in maps} >= {entry.level for entry in recorded_maps}:
        traced, maps = None, recorded_maps
    check_complete(observation, maps, needed)
    check_strides(observation, maps)
    if not maps:
        tried = " and ".join(f"{height} x {width}" for height, width in dict.fromkeys(observation.sizes))
        raise NegotiationError(
            f"{owner} was probed with images of {in_channels} channels at {tried}, and computes no feature map: "
            + (
                "no 4-D tensor that depends on its parameters has two axes that grow with H and W."
                if observation.fixed is None
                else "no convolution, pooling or other operation on (N, C, H, W) shows one at this size alone."
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
    """Return which image sizes the encoder of these maps takes, as it shows by running on some.

    A model pads to a multiple of its coarsest map's stride in any case, so that only these multiples are tried.
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
        except Exception:  # noqa: BLE001 (a size that it refuses)
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
    """Return the largest odd multiple up to a length, at least the multiple itself."""
    count = length // multiple
    return multiple * max(1, count - 1 + count % 2)


def _compiled_path(module: nn.Module) -> str | None:
    """Return where the first module lies that torch.compile or `Module.compile` compiles; None where nothing is compiled."""
    for path, submodule in module.named_modules():
        if "_orig_mod" in submodule._modules or getattr(submodule, "_compiled_call_impl", None) is not None:
            return f" at {path}" if path else " as a whole"
    return None
