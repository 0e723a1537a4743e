"""Run a module on images of two sizes, and record its tensors with the parameters that each depends on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from zoo.errors import PluginError
from zoo.model.probing.measurement import (
    BATCH,
    META_SIZES,
    REAL_SIZES,
    DependencyRecorder,
    Layout,
    TokenGrid,
    fixed_layout_of,
    layout_of,
    named_tensors,
    run,
    set_modes,
    token_layout_of,
)
from zoo.model.probing.recording import Location, record
from zoo.model.probing.sightings import Sighting

__all__ = ["Observation"]

_FIXED_SIZES = (224, 256, 384, 299, 518, 128, 64, 32)
# A module that was measured on the meta device at two sizes is also run on an image of this size with actual values.
_VERIFIED_SIZE = (256, 320)


class Observation:
    """The tensors that a module computes in two runs, and the parameters that each tensor depends on."""

    def __init__(self, module: nn.Module, in_channels: int, image_size: tuple[int, int] | None) -> None:
        self.module = module
        self.owner = type(module).__name__
        self.in_channels = in_channels
        self.image_size = image_size
        self.tensors: list[dict[Location, Tensor]] = []
        self.versions: dict[Location, int] = {}
        self.outputs: list[dict[str, Tensor]] = []
        self.recorders: list[DependencyRecorder] = []
        self.parameters: dict[Location, frozenset[int]] = {}
        self.grid = _declared_grid(module)
        self.on_meta, self.sizes = self._find_sizes()
        self.fixed = self.sizes[0] if self.sizes[0] == self.sizes[1] else None

    def _find_sizes(self) -> tuple[bool, tuple[tuple[int, int], ...]]:
        """Find two sizes that the module accepts, and record its tensors at both.

        Return whether the runs are on the meta device, and the two sizes. If the module accepts only `image_size`, both are
        `image_size`.
        """
        is_meta = any(parameter.is_meta for parameter in self.module.parameters())
        fixed = [] if self.image_size is None else [(self.image_size, self.image_size)]
        real = [] if is_meta else [(False, sizes) for sizes in (*REAL_SIZES, *fixed)]
        failures: list[str] = []
        cause: Exception | None = None
        set_modes(self.module, training=False)
        for on_meta, sizes in [*((True, sizes) for sizes in (*META_SIZES, *fixed)), *real]:
            self.tensors, self.outputs, self.recorders, self.parameters, self.versions = [], [], [], {}, {}
            where = "on the meta device" if on_meta else "on its own device"
            try:
                for size in sizes:
                    tensors: dict[Location, Tensor] = {}
                    recorder = DependencyRecorder()

                    def put(
                        location: Location,
                        tensor: Tensor,
                        tensors: dict[Location, Tensor] = tensors,
                        recorder: DependencyRecorder = recorder,
                    ) -> None:
                        tensors[location] = tensor
                        self.versions.setdefault(location, tensor._version)
                        recorder.hold(tensor, parameters := recorder.parameters_of(tensor))
                        self.parameters.setdefault(location, parameters)

                    paths = [path for path, _ in self.module.named_modules()]
                    with record(self.module, paths, put):
                        output = run(self.module, size, self.in_channels, on_meta=on_meta, recorder=recorder)[0]
                    self.recorders.append(recorder)
                    self.tensors.append(tensors)
                    self.outputs.append(dict(named_tensors(output)))
                if on_meta and not is_meta:  # an index out of bounds is not detected on the meta device
                    size, where = sizes[0] if sizes[0] == sizes[1] else _VERIFIED_SIZE, "on its own device"
                    with torch.no_grad():
                        run(self.module, size, self.in_channels, on_meta=False)
            except Exception as error:  # noqa: BLE001 (the module's own code; the error below lists it)
                failures.append(f"  {size[0]} x {size[1]} {where}: {type(error).__name__}: {str(error)[:200]}")
                cause = error
            else:
                return on_meta, sizes
        raise PluginError(self._refusal(failures)) from cause

    def _refusal(self, failures: list[str]) -> str:
        asked = f"{self.owner} raised an error for every image size that was tried ({self.in_channels} channels):\n"
        sides = [side for side in _FIXED_SIZES if self._takes(side)]
        if sides:
            sizes = " and ".join(f"{side} x {side}" for side in sides[:3])
            advice = (
                f"It takes images of {sizes}, so it seems to be made for one size: pass image_size=({sides[0]}, {sides[0]}), "
                "or create the module with its own option for other sizes, if it has one. You can also register it with "
                "zoo.register_encoder and an explicit pyramid."
            )
        elif self.image_size is None:
            advice = (
                "Check in_channels=, and that its forward takes one tensor (N, in_channels, H, W). For a module of one "
                "image size, pass image_size=(H, W)."
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
        except Exception:  # noqa: BLE001 (the module refuses this size too)
            return False
        return True

    def layout(self, tensors: Sequence[Tensor | None], recorder: DependencyRecorder) -> Layout | None:
        """Return the layout of a map, given its tensor in each run; None if the tensors are not a map."""
        first, second = tensors
        if first is None or second is None:
            return None
        if self.grid is not None and (tokens := token_layout_of((first, second), self.sizes, self.grid)):
            return tokens
        if self.fixed is None:
            return layout_of(first, second, self.sizes)
        is_map = recorder.is_channels_first(first) and not recorder.is_pooled(first)
        return fixed_layout_of(first, self.fixed) if is_map else None

    def follows_image(self, first: Tensor, second: Tensor | None) -> bool:
        """Return whether the size of a tensor changes with the image's size, as that of a map or of tokens does.

        `first` and `second` are the tensor in the two runs; `second` is None if the second run did not compute it.
        """
        if second is None or first.ndim < 3 or first.ndim != second.ndim or not first.is_floating_point():
            return False
        if self.fixed is not None:  # a single size: every tensor counts, except a tensor of one vector for each image
            wide = [axis for axis in range(first.ndim) if first.shape[axis] > 1]
            return BATCH in first.shape[:2] and len(wide) > 2 and not self.recorders[0].is_pooled(first)
        same = [axis for axis in range(first.ndim) if first.shape[axis] == second.shape[axis]]
        batch = next((axis for axis in (0, 1) if axis in same and first.shape[axis] == BATCH), None)
        channels = [axis for axis in same if axis != batch and first.shape[axis] > 1]
        return batch is not None and bool(channels) and len(same) < first.ndim

    def last_parameters(self) -> frozenset[int]:
        """Return the ids of the parameters that the last map, or the last tokens, depend on."""
        first, second = (recorder.steps for recorder in self.recorders)
        pairs: Sequence[tuple[Tensor, Tensor | None]]
        if len(first) == len(second):
            pairs = [*zip(first, second, strict=True)]
        else:  # the module runs different code for the two sizes
            pairs = [(tensor, self.tensors[1].get(location)) for location, tensor in self.tensors[0].items()]
        found = (self.recorders[0].parameters_of(one) for one, other in reversed(pairs) if self.follows_image(one, other))
        return next((parameters for parameters in found if parameters), frozenset())

    def returned_parameters(self) -> frozenset[int]:
        """Return the ids of the parameters that the returned maps and tokens depend on."""
        first, second = self.outputs
        kept = [tensor for key, tensor in first.items() if self.follows_image(tensor, second.get(key))]
        return frozenset().union(*(self.recorders[0].parameters_of(tensor) for tensor in kept))

    def describe_tokens(self) -> str:
        """Return a sentence on what the module declares about its tokens."""
        if self.grid is None:
            patch_size = getattr(self.module, "patch_size", None)
            if patch_size is None:
                return f"{self.owner} declares no patch_size."
            return f"{self.owner} declares patch_size = {patch_size}, but no num_prefix_tokens."
        height, width = self.grid.patch_size
        return f"{self.owner} declares {self.grid.num_prefix_tokens} prefix tokens and patches of {height} x {width}."

    def has_parameters(self) -> bool:
        """Return whether the module has any parameter.

        A tensor normally counts as a map only if it depends on a parameter. This rule does not apply to a module without
        parameters.
        """
        return next(self.module.parameters(), None) is not None

    def returned_maps(self) -> list[Sighting]:
        """Return the maps that forward itself returns; [] if there are fewer than two.

        If several maps have about the same stride, and only some of them depend on parameters, the others are left out.
        """
        first, second = self.outputs
        maps = []
        for key, tensor in first.items():
            layout = self.layout((tensor, second.get(key)), self.recorders[0])
            parameters = self.recorders[0].parameters_of(tensor)
            if layout is not None:
                locations = [location for location, seen in self.tensors[0].items() if seen is tensor and location.path]
                unchanged = [location for location in locations if self.versions[location] == tensor._version]
                source = unchanged[-1] if unchanged else Location(path="", call=1, key=key)
                name = f"map{key}" if key.isdigit() else key
                maps.append(Sighting(name=name, depth=1, value=key, source=source, layout=layout, parameters=parameters))
        learned = {sighting.level for sighting in maps if sighting.parameters}
        maps = [sighting for sighting in maps if sighting.parameters or sighting.level not in learned]
        return maps if len(maps) > 1 else []

    def recorded_maps(self) -> list[Sighting]:
        """Return the maps that the submodules, or the module itself, returned."""
        first, second = self.tensors
        sightings: list[Sighting] = []
        for location, tensor in first.items():
            parameters = self.parameters[location]
            learned = parameters or not self.has_parameters()
            layout = self.layout((tensor, second.get(location)), self.recorders[0]) if learned else None
            # a map that the module itself returns counts only if no submodule returned it: a submodule has a better name
            if layout is not None and (location.path or id(tensor) not in {sighting.value for sighting in sightings}):
                name = ".".join(part for part in (location.path, location.key) if part) or "output"
                name = name if location.call == 1 else f"{name}_{location.call - 1}"
                depth = location.path.count(".") + 1
                sightings.append(
                    Sighting(name=name, depth=depth, value=id(tensor), source=location, layout=layout, parameters=parameters)
                )
        return sightings

    @cached_property
    def own_values_and_gradients(self) -> dict[str, Tensor] | None:
        """The result of `values_and_gradients` for the observed module."""
        return self.values_and_gradients(self.module)

    def values_and_gradients(self, module: nn.Module, prefix: str = "") -> dict[str, Tensor] | None:
        """Run a module on a random image, on a real device, and return its outputs and its parameters' gradients.

        Several image sizes are tried until the module accepts one. Return None if it fails for all of them.
        """
        sizes = (*(size for size, _ in REAL_SIZES), _VERIFIED_SIZE) if self.fixed is None else (self.fixed,)
        for size in sizes:
            torch.default_generator.manual_seed(0)
            try:
                output, stand_ins = run(module, size, self.in_channels, on_meta=False)
            except Exception:  # noqa: BLE001 (the image may be too small)
                continue
            tensors = {f"output {key}": tensor for key, tensor in named_tensors(output)}
            weighted = [
                (tensor.flatten().float() * torch.linspace(1, 2, tensor.numel(), device=tensor.device)).mean()
                for tensor in tensors.values()
                if tensor.requires_grad
            ]
            if weighted:
                wanted = {name: tensor for name, tensor in stand_ins.items() if tensor.requires_grad}
                try:
                    gradients = torch.autograd.grad(torch.stack(weighted).sum(), [*wanted.values()], allow_unused=True)
                except RuntimeError as cause:
                    raise PluginError(
                        f"The gradients of {self.owner} cannot be measured: {str(cause)[:200]}. "
                        "If it uses torch.utils.checkpoint, pass use_reentrant=False."
                    ) from cause
                named = zip(wanted, gradients, strict=True)
                tensors |= {f"gradient {name.removeprefix(prefix)}": tensor for name, tensor in named if tensor is not None}
            return {key: tensor.detach() for key, tensor in tensors.items()}
        return None


def _declared_grid(module: nn.Module) -> TokenGrid | None:
    """Return the order of tokens that the module or a module inside it declares; None if none is declared."""
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
