"""The pyramid of any nn.Module: its maps measured at two image sizes, and the encoder that gives them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from zoo.common.foreign_code import no_exits
from zoo.common.format_names import format_names
from zoo.errors import NegotiationError, OptionError, PluginError, WeightsError
from zoo.model.probing.extraction import Place, RecordedEncoder, Traced, cut, differing_scopes, recorded, trace
from zoo.model.probing.measurement import (
    BATCH,
    META_SIZES,
    REAL_SIZES,
    Layout,
    TokenGrid,
    Watch,
    fixed_layout_of,
    layout_of,
    named_tensors,
    run,
    set_modes,
    token_layout_of,
    untouched,
)
from zoo.model.probing.pruning import pruned
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.pyramid import FeatureMap
from zoo.registry.registry import default_registry
from zoo.registry.specs import EncoderSpec, Preprocessing

__all__ = ["ProbedFactory", "probe"]

_FIXED_SIZES = (224, 256, 384, 299, 518, 128, 64, 32)
_VERIFIED_SIZE = (256, 320)  # of a real run, above the size that most modules of one size are made for
_TRUNK_LEVELS = 3  # a block shows two where it strides: what it expands at the finer one, and its output


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
    with untouched(module):
        return _Probe(module, in_channels, image_size).spec()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """One name of one map; `value` tells which map it is, `source` where an encoder finds it.

    `parameters` holds the ids of the parameters that it is computed from.
    """

    name: str
    depth: int
    value: Any
    source: Any
    layout: Layout
    parameters: frozenset[int]

    @property
    def level(self) -> int:
        return round(math.log2(self.layout.stride))

    def as_map(self) -> FeatureMap:
        return FeatureMap(name=self.name, channels=self.layout.channels, stride=self.layout.stride)


class ProbedFactory:
    """Makes a probed module's encoder; its keywords are what every encoder factory takes."""

    def __init__(
        self,
        module: nn.Module,
        in_channels: int,
        maps: Sequence[_Sighting],
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
                f"{owner} takes images of {self.in_channels} channels, and was asked for {in_channels}; pass "
                f"in_channels={self.in_channels}, or change the module's first layer."
            )
        if unknown := [name for name in maps if name not in self._sightings]:
            raise OptionError(f"{owner} gives no map {', '.join(unknown)}. Its maps: {', '.join(self._sightings)}.")
        chosen = [self._sightings[name] for name in maps]
        sources = [sighting.source for sighting in chosen]
        layouts = [sighting.layout for sighting in chosen]
        encoder: nn.Module
        with untouched(self.module):
            if self._traced is not None:
                encoder = cut(self._traced, sources, layouts, self.module, are_returned=self._are_returned)
            else:
                encoder = RecordedEncoder(self.module, sources, layouts)
            encoder = pruned(encoder, self.in_channels, self._fixed)
        preprocessing = getattr(self.module, "preprocessing", None)
        if isinstance(preprocessing, Preprocessing):
            encoder.preprocessing = preprocessing  # type: ignore[assignment]
        return encoder


class _Probe:
    """One module under measurement."""

    def __init__(self, module: nn.Module, in_channels: int, image_size: tuple[int, int] | None) -> None:
        self.module = module
        self.owner = type(module).__name__
        self.in_channels = in_channels
        self.image_size = image_size
        self.places: list[dict[Place, Tensor]] = []
        self.versions: dict[Place, int] = {}
        self.outputs: list[dict[str, Tensor]] = []
        self.watches: list[Watch] = []
        self.parameters: dict[Place, frozenset[int]] = {}
        self.needed: frozenset[int] = frozenset()
        self.computed: dict[str, Tensor] | None = None
        self.grid = _declared_grid(module)
        self.on_meta, self.sizes = self._working_sizes()
        self.fixed = self.sizes[0] if self.sizes[0] == self.sizes[1] else None

    def spec(self) -> EncoderSpec:
        returned = self._returned()
        self.needed = self._returned_parameters() if returned else self._last_parameters()
        traced, maps = self._traced_maps(returned)
        recorded_maps = returned or self._selected(self._recorded_sightings())
        if traced is None or not _cover(maps, recorded_maps):
            traced, maps = None, recorded_maps
        self._check_complete(maps)
        self._check_strides(maps)
        if not maps:
            tried = " and ".join(f"{height} x {width}" for height, width in dict.fromkeys(self.sizes))
            raise NegotiationError(
                f"{self.owner} was probed with images of {self.in_channels} channels at {tried}, and computes no feature map: "
                + (
                    "no 4-D tensor that depends on its parameters has two axes that grow with H and W."
                    if self.fixed is None
                    else "no convolution, pooling or other operation on (N, C, H, W) shows one at this size alone."
                )
            )
        maps = sorted(maps, key=lambda sighting: sighting.layout.stride)
        name = re.sub(r"[^A-Za-z0-9_.+-]", "-", self.owner).lstrip("_.+-") or "module"
        factory = ProbedFactory(self.module, self.in_channels, maps, traced, self.fixed, are_returned=bool(returned))
        encoder = factory(maps=[sighting.name for sighting in maps], in_channels=self.in_channels)
        self._check_gradients(encoder, maps)
        self._check_shapes(encoder, maps)
        return EncoderSpec(
            name=name,
            factory=factory,
            pyramid=tuple(sighting.as_map() for sighting in maps),
            sizes=self._image_sizes(encoder, maps),
            options=(),
        )

    def _working_sizes(self) -> tuple[bool, tuple[tuple[int, int], ...]]:
        """Find two sizes that the module takes, and keep what it computes at them; `image_size` twice, if it takes no other."""
        is_meta = any(parameter.is_meta for parameter in self.module.parameters())
        fixed = [] if self.image_size is None else [(self.image_size, self.image_size)]
        real = [] if is_meta else [(False, sizes) for sizes in (*REAL_SIZES, *fixed)]
        failures: list[str] = []
        cause: Exception | None = None
        set_modes(self.module, training=False)
        for on_meta, sizes in [*((True, sizes) for sizes in (*META_SIZES, *fixed)), *real]:
            self.places, self.outputs, self.watches, self.parameters, self.versions = [], [], [], {}, {}
            where = "on the meta device" if on_meta else "on its own device"
            try:
                for size in sizes:
                    found: dict[Place, Tensor] = {}
                    watch = Watch()

                    def put(place: Place, tensor: Tensor, found: dict[Place, Tensor] = found, watch: Watch = watch) -> None:
                        found[place] = tensor
                        self.versions.setdefault(place, tensor._version)
                        watch.hold(tensor, parameters := watch.parameters_of(tensor))
                        self.parameters.setdefault(place, parameters)

                    paths = [path for path, _ in self.module.named_modules()]
                    with recorded(self.module, paths, put):
                        output = run(self.module, size, self.in_channels, on_meta=on_meta, watch=watch)[0]
                    self.watches.append(watch)
                    self.places.append(found)
                    self.outputs.append(dict(named_tensors(output)))
                if on_meta and not is_meta:  # meta tensors have no values, so that an index out of bounds goes unnoticed
                    size, where = sizes[0] if sizes[0] == sizes[1] else _VERIFIED_SIZE, "on its own device"
                    with torch.no_grad():
                        run(self.module, size, self.in_channels, on_meta=False)
            except Exception as error:  # noqa: BLE001 (the module's own code: told below, with its cause)
                failures.append(f"  {size[0]} x {size[1]} {where}: {type(error).__name__}: {str(error)[:200]}")
                cause = error
            else:
                return on_meta, sizes
        raise PluginError(self._refusal(failures)) from cause

    def _refusal(self, failures: list[str]) -> str:
        asked = f"{self.owner} raised for every image size it was probed with ({self.in_channels} channels):\n"
        sides = [side for side in _FIXED_SIZES if self._takes(side)]
        if sides:
            sizes = " and ".join(f"{side} x {side}" for side in sides[:3])
            advice = (
                f"It takes images of {sizes}, so it seems to be made for one size: pass image_size=({sides[0]}, {sides[0]}), "
                "or make it with its own option for other sizes, if it has one. Another way is zoo.register_encoder, "
                "with its pyramid written down."
            )
        elif self.image_size is None:
            advice = (
                "Check in_channels=, and that its forward takes one tensor (N, in_channels, H, W). A module of one image size "
                "needs it as image_size=(H, W)."
            )
        else:
            advice = "Check in_channels= and image_size=, and that its forward takes one tensor (N, in_channels, H, W)."
        return asked + "\n".join(failures) + f"\n{advice}"

    def _takes(self, side: int) -> bool:
        is_meta = any(parameter.is_meta for parameter in self.module.parameters())
        try:
            with torch.no_grad():
                for on_meta in (True,) if is_meta else (True, False):
                    run(self.module, (side, side), self.in_channels, on_meta=on_meta)
        except Exception:  # noqa: BLE001 (one more size that it refuses)
            return False
        return True

    def _layout(self, tensors: Sequence[Tensor | None], watch: Watch) -> Layout | None:
        first, second = tensors
        if first is None or second is None:
            return None
        if self.grid is not None and (tokens := token_layout_of((first, second), self.sizes, self.grid)):
            return tokens
        if self.fixed is None:
            return layout_of(first, second, self.sizes)
        is_map = watch.is_channels_first(first) and not watch.is_pooled(first)
        return fixed_layout_of(first, self.fixed) if is_map else None

    def _follows_image(self, first: Tensor, second: Tensor | None) -> bool:
        """Whether a tensor, seen in two runs, holds maps or tokens, so that its size follows the image's."""
        if second is None or first.ndim < 3 or first.ndim != second.ndim or not first.is_floating_point():
            return False
        if self.fixed is not None:  # nothing grows: whatever is no single vector an image counts
            wide = [axis for axis in range(first.ndim) if first.shape[axis] > 1]
            return BATCH in first.shape[:2] and len(wide) > 2 and not self.watches[0].is_pooled(first)
        same = [axis for axis in range(first.ndim) if first.shape[axis] == second.shape[axis]]
        batch = next((axis for axis in (0, 1) if axis in same and first.shape[axis] == BATCH), None)
        channels = [axis for axis in same if axis != batch and first.shape[axis] > 1]
        return batch is not None and bool(channels) and len(same) < first.ndim

    def _last_parameters(self) -> frozenset[int]:
        """Return the parameters of the last tensor whose size follows the image's: a map, or tokens."""
        first, second = (watch.steps for watch in self.watches)
        pairs: Sequence[tuple[Tensor, Tensor | None]]
        if len(first) == len(second):
            pairs = [*zip(first, second, strict=True)]
        else:  # it takes another way for each size
            pairs = [(tensor, self.places[1].get(place)) for place, tensor in self.places[0].items()]
        found = (self.watches[0].parameters_of(one) for one, other in reversed(pairs) if self._follows_image(one, other))
        return next((parameters for parameters in found if parameters), frozenset())

    def _returned_parameters(self) -> frozenset[int]:
        """Return the parameters of all that forward returns and whose size follows the image's."""
        first, second = self.outputs
        kept = [tensor for key, tensor in first.items() if self._follows_image(tensor, second.get(key))]
        return frozenset().union(*(self.watches[0].parameters_of(tensor) for tensor in kept))

    def _check_complete(self, maps: Sequence[_Sighting]) -> None:
        """Refuse maps that leave out what the module's last map, or its last tokens, depend on."""
        missing = self.needed.difference(*(sighting.parameters for sighting in maps))
        if not missing:
            return
        names = [name for name, parameter in self.module.named_parameters() if id(parameter) in missing]
        found = ", ".join(f"{sighting.name} (stride {sighting.layout.stride:g})" for sighting in maps) or "none"
        package = type(self.module).__module__.partition(".")[0]
        plugins = sorted({plugin.name for plugin in default_registry().found})
        ids = ", ".join(f"`{name}:NAME`" for name in ([package] if package in plugins else plugins))
        raise NegotiationError(
            f"{self.owner} computes more than the feature maps that were found in it: an encoder of these would leave out "
            f"{len(names)} parameters that its last map or its tokens depend on: {format_names(names, 3)}. "
            f"Maps found: {found}. "
            "A map is (N, C, H, W) or (N, H, W, C). Tokens (N, L, C) are taken only where a module declares their order, by "
            "`num_prefix_tokens` (class and register tokens before the patches') and `patch_size`, and their number agrees. "
            f"{self._declared()} Set on it what is missing, use an encoder's id (`zoo list encoders`: {ids}), or pass a module "
            "whose forward returns a list of maps (a wrapper of `forward_intermediates`, where the module has it)."
        )

    def _check_strides(self, maps: Sequence[_Sighting]) -> None:
        """Refuse several maps of one stride where the last, which a decoder gets, leaves out what another is made by."""
        last = {sighting.level: sighting for sighting in maps}
        covered = frozenset().union(*(sighting.parameters for sighting in last.values()))
        lost = [sighting for sighting in maps if not sighting.parameters <= covered]
        if lost:
            kept = last[lost[0].level]
            names = [
                name for name, parameter in self.module.named_parameters() if id(parameter) in lost[0].parameters - covered
            ]
            raise NegotiationError(
                f"{self.owner} returns {lost[0].name} ({lost[0].layout.channels} channels) and {kept.name} "
                f"({kept.layout.channels} channels), both of stride {kept.layout.stride:g}. A decoder gets one map of each "
                f"stride, the last, and an encoder of {kept.name} would leave out {len(names)} parameters that {lost[0].name} "
                f"depends on, such as {names[0]}. Pass a module that returns one map of each stride: a wrapper that picks or "
                "joins them, or the backbone inside."
            )

    def _check_gradients(self, encoder: nn.Module, maps: Sequence[_Sighting]) -> None:
        """Refuse an encoder that would not train what the module itself trains."""
        if any(parameter.is_meta for parameter in self.module.parameters()):
            return
        computed = self._computed(self.module) if self.computed is None else self.computed
        needed = frozenset().union(*(sighting.parameters for sighting in maps))
        held = {id(parameter) for parameter in encoder.parameters()}
        lost = [
            name
            for name, parameter in self.module.named_parameters()
            if f"gradient {name}" in (computed or {}) and id(parameter) in needed and id(parameter) not in held
        ]
        if lost:
            raise PluginError(
                f"{self.owner} trains parameters that get no gradient from its maps: {format_names(lost, 3)}. Its maps lie "
                "inside a torch.autograd.Function, which hides gradients (torch.utils.checkpoint with use_reentrant=True is "
                "one: give it use_reentrant=False)."
            )

    def _check_shapes(self, encoder: nn.Module, maps: Sequence[_Sighting]) -> None:
        """Refuse an encoder that fails, or gives other maps, for an image or in a mode in which the module itself runs."""
        small = self.sizes[0]
        for size, training in ((small[::-1], False), ((small[0] // 4, small[1] // 4), False), (small, True)):
            set_modes(self.module, training=training)
            set_modes(encoder, training=training)
            where = f"for images of {size[0]} x {size[1]} in {'train' if training else 'eval'} mode"
            try:
                with torch.no_grad():
                    run(self.module, size, self.in_channels, on_meta=self.on_meta)
            except Exception:  # noqa: BLE001 (a size or a mode that the module itself does not take)
                continue
            try:
                with torch.no_grad():
                    found, _ = run(encoder, size, self.in_channels, on_meta=self.on_meta)
            except Exception as cause:
                raise PluginError(f"{self.owner} runs {where}, and an encoder of its maps does not: {cause}") from cause
            for sighting, tensor in zip(maps, found, strict=True):
                if not sighting.layout.fits(tensor, size):
                    raise PluginError(
                        f"{self.owner}: the map {sighting.name} has the shape {tuple(tensor.shape)} {where}, where "
                        f"{sighting.layout.channels} channels at stride {sighting.layout.stride:g} were expected. Its "
                        "forward must give the same maps for every image and in both modes."
                    )

    def _image_sizes(self, encoder: nn.Module, maps: Sequence[_Sighting]) -> ImageSizes:
        """Return which image sizes the encoder of these maps takes, as it shows by running on some.

        A model pads to a multiple of its coarsest map's stride in any case, so that only these multiples are tried.
        """
        if self.fixed is not None:
            return ImageSizes(fixed=self.fixed)
        patches = [side for sighting in maps if sighting.layout.tokens for side in sighting.layout.tokens.patch_size]
        patch = max(patches, default=1)
        step = patch if patches else 2 ** max(sighting.level for sighting in maps)
        height, width = self.sizes[0]

        def takes(rows: int, columns: int) -> bool:
            try:
                run(encoder, (rows, columns), self.in_channels, on_meta=self.on_meta)
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

    def _declared(self) -> str:
        if self.grid is None:
            patch_size = getattr(self.module, "patch_size", None)
            known = "neither" if patch_size is None else f"patch_size = {patch_size}, and no num_prefix_tokens"
            return f"{self.owner} declares {known}."
        height, width = self.grid.patch_size
        return f"{self.owner} declares {self.grid.num_prefix_tokens} prefix tokens and patches of {height} x {width}."

    def _has_parameters(self) -> bool:
        return next(self.module.parameters(), None) is not None

    def _returned(self) -> list[_Sighting]:
        """Return the maps that forward itself returns, if it returns several; none without parameters beside a learned one."""
        first, second = self.outputs
        maps = []
        for key, tensor in first.items():
            layout = self._layout((tensor, second.get(key)), self.watches[0])
            parameters = self.watches[0].parameters_of(tensor)
            if layout is not None:
                places = [place for place, seen in self.places[0].items() if seen is tensor and place.path]
                unchanged = [place for place in places if self.versions[place] == tensor._version]
                source = unchanged[-1] if unchanged else Place(path="", call=1, key=key)
                name = f"map{key}" if key.isdigit() else key
                maps.append(_Sighting(name=name, depth=1, value=key, source=source, layout=layout, parameters=parameters))
        learned = {sighting.level for sighting in maps if sighting.parameters}
        maps = [sighting for sighting in maps if sighting.parameters or sighting.level not in learned]
        return maps if len(maps) > 1 else []

    def _recorded_sightings(self) -> list[_Sighting]:
        """Return what the submodules were seen to return."""
        first, second = self.places
        sightings: list[_Sighting] = []
        for place, tensor in first.items():
            parameters = self.parameters[place]
            learned = parameters or not self._has_parameters()
            layout = self._layout((tensor, second.get(place)), self.watches[0]) if learned else None
            if layout is not None and (place.path or id(tensor) not in {sighting.value for sighting in sightings}):
                name = ".".join(part for part in (place.path, place.key) if part) or "output"
                name = name if place.call == 1 else f"{name}_{place.call - 1}"
                depth = place.path.count(".") + 1
                sightings.append(
                    _Sighting(name=name, depth=depth, value=id(tensor), source=place, layout=layout, parameters=parameters)
                )
        return sightings

    def _traced_maps(self, returned: list[_Sighting]) -> tuple[Traced | None, list[_Sighting]]:
        """Trace until train and eval mode agree on what leads to the maps; modules that differ stay modules."""
        leaves: set[str] = set()
        for _ in range(8):
            set_modes(self.module, training=False)
            in_eval = trace(self.module, leaves)
            set_modes(self.module, training=True)
            in_train = None if in_eval is None else trace(self.module, leaves)
            set_modes(self.module, training=False)
            if in_eval is None or in_train is None:
                return None, []
            if in_eval.num_leaves != len(leaves):
                continue  # the second trace found more modules that cannot be traced
            maps = self._of_graph(in_eval, returned)
            if maps is None:
                return None, []
            names = {name: node for name, _, node in in_train.names}
            of_eval = {node: name for name, _, node in in_eval.names}
            sources = [sighting.source for sighting in maps]
            partners = [names[of_eval[node]] for node in sources if of_eval[node] in names]
            if len(partners) < len(sources):
                sources, partners = [*in_eval.scopes], [*in_train.scopes]
            differing = differing_scopes(in_eval, sources, in_train, partners, are_returned=bool(returned))
            if differing is None:
                return None, []
            if not differing:
                return (in_eval, maps) if self._computes_the_same(in_eval) else (None, [])
            leaves |= differing
        return None, []

    def _computes_the_same(self, traced: Traced) -> bool:
        """Whether the graph gives the module's values and gradients; a forward may take another way for fx's proxies."""
        if any(parameter.is_meta for parameter in self.module.parameters()):
            return True
        expected = self.computed = self._computed(self.module)
        return expected is None or _are_close(expected, self._computed(traced.module, "module."))

    def _computed(self, module: nn.Module, prefix: str = "") -> dict[str, Tensor] | None:
        """Return what a module gives for a real image, and its parameters' gradients; None where it takes no size tried."""
        sizes = (*(size for size, _ in REAL_SIZES), _VERIFIED_SIZE) if self.fixed is None else (self.fixed,)
        for size in sizes:
            torch.default_generator.manual_seed(0)
            try:
                output, stand_ins = run(module, size, self.in_channels, on_meta=False)
            except Exception:  # noqa: BLE001 (an image too small for it)
                continue
            found = {f"output {key}": tensor for key, tensor in named_tensors(output)}
            weighted = [
                (tensor.flatten().float() * torch.linspace(1, 2, tensor.numel(), device=tensor.device)).mean()
                for tensor in found.values()
                if tensor.requires_grad
            ]
            if weighted:
                wanted = {name: tensor for name, tensor in stand_ins.items() if tensor.requires_grad}
                try:
                    gradients = torch.autograd.grad(torch.stack(weighted).sum(), [*wanted.values()], allow_unused=True)
                except RuntimeError as cause:
                    raise PluginError(
                        f"{self.owner}: its gradients cannot be measured: {str(cause)[:200]}. "
                        "If it uses torch.utils.checkpoint, give that use_reentrant=False."
                    ) from cause
                named = zip(wanted, gradients, strict=True)
                found |= {f"gradient {name.removeprefix(prefix)}": tensor for name, tensor in named if tensor is not None}
            return {key: tensor.detach() for key, tensor in found.items()}
        return None

    def _of_graph(self, traced: Traced, returned: list[_Sighting]) -> list[_Sighting] | None:
        """Return the maps as nodes of the graph; None where the graph does not compute what the module does."""
        first: dict[fx.Node, Tensor] = {}
        second: dict[fx.Node, Tensor] = {}
        parameters: dict[fx.Node, frozenset[int]] = {}
        watches: list[Watch] = []
        try:
            for size, seen in zip(self.sizes, (first, second), strict=True):
                watches.append(watch := Watch())

                def see(node: fx.Node, tensor: Tensor, seen: dict[fx.Node, Tensor] = seen, watch: Watch = watch) -> None:
                    seen[node] = tensor
                    parameters.setdefault(node, watch.parameters_of(tensor))

                run(
                    _Observed(traced.module, see, traced.changing.add),
                    size,
                    self.in_channels,
                    on_meta=self.on_meta,
                    watch=watch,
                )
        except Exception:  # noqa: BLE001 (the graph of a module that fx misread: the module then runs as it is)
            return None
        nodes = traced.returned()
        if returned:
            if any(not isinstance(sighting.value, str) or sighting.value not in nodes for sighting in returned):
                return None
            maps = []
            for sighting in returned:
                node = nodes[sighting.value]
                layout = self._layout((first.get(node), second.get(node)), watches[0])
                if layout != sighting.layout or node not in {entry for _, _, entry in traced.names}:
                    return None
                maps.append(replace(sighting, value=node, source=node, parameters=parameters[node]))
            return maps
        sightings = []
        for name, depth, node in traced.names:
            learned = parameters.get(node) or not self._has_parameters()
            layout = self._layout((first.get(node), second.get(node)), watches[0]) if learned else None
            if layout is not None:
                sightings.append(
                    _Sighting(name=name, depth=depth, value=node, source=node, layout=layout, parameters=parameters[node])
                )
        return self._selected(sightings)

    def _selected(self, sightings: Sequence[_Sighting]) -> list[_Sighting]:
        """Return the last map at each level, at the shallowest depth that shows the level, fine to coarse.

        A module that shows three levels or more is a trunk, not a stage: what it calls counts in its place. Where these maps
        leave out parameters of the last one that the module computes, deeper in its modules, that one takes its level.
        """
        levels: defaultdict[str, set[int]] = defaultdict(set)
        for sighting in sightings:
            for above in _above(sighting.name):
                levels[above].add(sighting.level)
        trunks = {path for path, shown in levels.items() if len(shown) >= _TRUNK_LEVELS}
        chosen: dict[int, tuple[int, _Sighting]] = {}
        for sighting in sightings:
            repeats = sighting.name in trunks and sighting.level in chosen and chosen[sighting.level][1].value == sighting.value
            depth = sighting.depth - sum(above in trunks for above in _above(sighting.name))
            if not repeats and (sighting.level not in chosen or depth <= chosen[sighting.level][0]):
                chosen[sighting.level] = depth, sighting
        if missing := self.needed.difference(*(sighting.parameters for _, sighting in chosen.values())):
            later = [sighting for sighting in sightings if missing <= sighting.parameters]
            if later:
                last = min(reversed(later), key=lambda sighting: sighting.depth)
                chosen[last.level] = last.depth, last
        return sorted((sighting for _, sighting in chosen.values()), key=lambda sighting: sighting.layout.stride)


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


def _declared_grid(module: nn.Module) -> TokenGrid | None:
    """Return the order of tokens that the module or a module inside it declares; None for none."""
    for submodule in module.modules():
        prefix = getattr(submodule, "num_prefix_tokens", None)
        if not isinstance(prefix, int) or isinstance(prefix, bool) or prefix < 0:
            continue
        for holder in (submodule, getattr(submodule, "patch_embed", None)):
            patch = getattr(holder, "patch_size", None)
            if isinstance(patch, int) and not isinstance(patch, bool):
                patch = (patch, patch)
            if isinstance(patch, Sequence) and len(patch) == 2 and all(isinstance(side, int) and side > 0 for side in patch):
                return TokenGrid(num_prefix_tokens=prefix, patch_size=(patch[0], patch[1]))
    return None


def _are_close(expected: dict[str, Tensor], found: dict[str, Tensor] | None) -> bool:
    """Whether two runs gave the same tensors: of the same names, shapes and dtypes, and close to each other."""
    if found is None or expected.keys() != found.keys():
        return False
    for key, tensor in expected.items():
        other = found[key]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            return False
        sizes = tensor.abs() if tensor.is_complex() else tensor.float().abs()
        scale = float(sizes.nan_to_num().max()) if tensor.numel() else 0.0
        if not torch.allclose(tensor, other, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            return False
    return True


def _above(name: str) -> list[str]:
    """Return the paths of what holds this: `a` and `a.b` for `a.b.c`."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def _cover(maps: Sequence[_Sighting], others: Sequence[_Sighting]) -> bool:
    """Whether a graph shows each level that the module's own calls show."""
    return {entry.level for entry in maps} >= {entry.level for entry in others}


class _Observed(nn.Module):
    """Runs a graph node by node, hands on each tensor, and notes the nodes that change what they are given."""

    def __init__(
        self, graph: fx.GraphModule, see: Callable[[fx.Node, Tensor], None], see_changing: Callable[[fx.Node], None]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.see = see
        self.see_changing = see_changing

    def forward(self, image: Tensor) -> Any:
        see, see_changing = self.see, self.see_changing

        class Interpreter(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                given = [self.env[node] for node in n.all_input_nodes if isinstance(self.env.get(node), Tensor)]
                versions = [tensor._version for tensor in given]
                value = super().run_node(n)
                if [tensor._version for tensor in given] != versions:
                    see_changing(n)
                if isinstance(value, Tensor):
                    see(n, value)
                return value

        return Interpreter(self.graph).run(image)
