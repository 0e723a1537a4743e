"""Run a module with stand-ins for its parameters and buffers, restore its state afterwards, and find the layout of its maps."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "BATCH",
    "META_SIZES",
    "REAL_SIZES",
    "DependencyRecorder",
    "Layout",
    "TokenGrid",
    "as_map",
    "fixed_layout_of",
    "has_sides",
    "layout_of",
    "leaves",
    "named_tensors",
    "preserve_attributes",
    "preserve_state",
    "run",
    "set_modes",
    "token_layout_of",
    "tokens_to_map",
]

META_SIZES = (((512, 768), (1024, 1536)), ((448, 672), (896, 1568)))
REAL_SIZES = (((64, 96), (128, 224)), ((224, 448), (448, 672)))
BATCH = 2  # train-mode batch normalization needs two values per channel


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrid:
    """The order of tokens (N, L, C): prefix tokens, then one token for each patch, row by row.

    Attributes:
        num_prefix_tokens: the number of class and register tokens before the patch tokens.
        patch_size: the height and width of a patch, in pixels.
    """

    num_prefix_tokens: int
    patch_size: tuple[int, int]

    def num_tokens(self, size: tuple[int, int]) -> int:
        """Return the number of tokens, L, for an image of this height and width."""
        return self.num_prefix_tokens + (size[0] // self.patch_size[0]) * (size[1] // self.patch_size[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The channels, the stride and the order of the axes of a map. `tokens` is set if the map has the shape (N, L, C)."""

    channels: int
    stride: float
    channels_last: bool = False
    tokens: TokenGrid | None = None

    def fits(self, x: Tensor, size: tuple[int, int]) -> bool:
        """Return whether a tensor is a map (N, C, H, W) with these channels and about this stride for this image size."""
        return x.ndim == 4 and x.shape[1] == self.channels and has_sides(x, size, self.stride)


def has_sides(x: Tensor, size: tuple[int, int], stride: float) -> bool:
    """Return whether H and W of a map are about size / stride. A small difference, as of unpadded convolutions, is accepted."""
    near = [side / stride for side in size]
    return all(abs(side - length) <= 4 + 0.1 * length for side, length in zip(x.shape[2:], near, strict=True))


def named_tensors(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested lists, tuples, dicts and dataclasses, each with its dotted key."""
    if isinstance(output, Tensor):
        yield name, output
    elif is_dataclass(output) and not isinstance(output, dict | type):
        yield from named_tensors({entry.name: getattr(output, entry.name) for entry in fields(output)}, name)
    elif isinstance(output, dict | list | tuple):
        items: Iterable[tuple[Any, Any]] = output.items() if isinstance(output, dict) else enumerate(output)
        for key, value in items:
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def as_map(x: Tensor, image: Tensor, layout: Layout) -> Tensor:
    """Convert a tensor of this layout to a map (N, C, H, W). `image` is the image from which the module computed the tensor."""
    if layout.tokens is not None:
        return tokens_to_map(x, image, layout.tokens.num_prefix_tokens, layout.tokens.patch_size)
    return x.permute(0, 3, 1, 2) if layout.channels_last else x


def tokens_to_map(tokens: Tensor, image: Tensor, num_prefix_tokens: int, patch_size: tuple[int, int]) -> Tensor:
    """Return the patch tokens among tokens (N, L, C) as a map (N, C, H / patch height, W / patch width)."""
    height, width = image.shape[2] // patch_size[0], image.shape[3] // patch_size[1]
    patches = tokens[:, num_prefix_tokens:].transpose(1, 2)
    return patches.reshape(patches.shape[0], patches.shape[1], height, width)


def token_layout_of(tensors: Sequence[Tensor], sizes: Sequence[tuple[int, int]], grid: TokenGrid) -> Layout | None:
    """Return the layout of tokens that were computed at each of the sizes.

    Return None if the number of tokens does not fit the declared grid, or if the patches are not square.
    """
    for tensor, size in zip(tensors, sizes, strict=True):
        if tensor.ndim != 3 or not tensor.is_floating_point() or tensor.shape[:2] != (BATCH, grid.num_tokens(size)):
            return None
    height, width = grid.patch_size
    if height != width or tensors[0].shape[2] != tensors[-1].shape[2]:
        return None
    return Layout(channels=tensors[0].shape[2], stride=float(height), tokens=grid)


def layout_of(first: Tensor, second: Tensor, sizes: Sequence[tuple[int, int]]) -> Layout | None:
    """Return the layout of a map, given its tensors for images of two sizes; None if they are not a map."""
    if first.ndim != 4 or second.ndim != 4 or not first.is_floating_point() or first.shape[0] != BATCH or not first.numel():
        return None  # the last case: some encoders return a map without channels for a level that they lack
    moving = tuple(axis for axis in range(4) if first.shape[axis] != second.shape[axis])
    if moving not in ((2, 3), (1, 2)):
        return None
    grown = [large - small for small, large in zip(*sizes, strict=True)]
    steps = [second.shape[axis] - first.shape[axis] for axis in moving]
    if min(steps) < 1 or sum(grown) < sum(steps):
        return None
    measured = sum(grown) / sum(steps)
    if any(abs(change / measured - step) > 1.5 for change, step in zip(grown, steps, strict=True)):
        return None  # the axes grow at different rates: (tokens, tokens), or W before H
    stride = measured
    for whole in (2.0 ** max(0, round(math.log2(measured))), float(round(measured))):
        if all(abs(change / whole - step) < 1 for change, step in zip(grown, steps, strict=True)):
            stride = whole
            break
    channels = first.shape[3 if moving == (1, 2) else 1]
    return Layout(channels=channels, stride=stride, channels_last=moving == (1, 2))


def leaves(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the leaf tensors that receive gradients from the outputs, including outputs that are leaves themselves."""
    outputs = list(outputs)
    yield from (tensor for tensor in outputs if tensor.grad_fn is None and tensor.requires_grad)
    waiting: list[Any] = [tensor.grad_fn for tensor in outputs]
    seen = set()
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            yield function.variable
        waiting.extend(following for following, _ in function.next_functions)


# fmt: off
_OF_MAPS = {  # operations that take (N, C, H, W) by definition
    "conv2d", "conv_transpose2d", "batch_norm", "instance_norm", "group_norm", "interpolate", "pixel_shuffle",
    "pixel_unshuffle", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
}
_POINTWISE = {  # operations whose result has the same axes as an argument of the same shape
    "relu", "relu_", "relu6", "gelu", "silu", "silu_", "mish", "elu", "leaky_relu", "hardswish", "hardtanh", "sigmoid", "tanh",
    "dropout", "clone", "contiguous", "to", "float", "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__",
    "mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "type_as",
}
# fmt: on
_POOLS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "amin", "sum"}


class DependencyRecorder(TorchFunctionMode):
    """Records every tensor that a run computes, and the parameters that each tensor depends on, even if gradients are disabled.

    Attributes:
        steps: the tensors, in the order in which they are computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Tensor] = []
        self._maps: set[int] = set()  # inputs and outputs of operations on (N, C, H, W)
        self._alike: list[tuple[int, int]] = []  # an argument and a result with the same axes
        self._pooled: set[int] = set()  # pooled tensors, and tensors computed only from pooled tensors
        self._parameters: dict[int, frozenset[int]] = {}  # tensor id -> parameter ids; the tensors are kept alive
        self._stand_ins: dict[int, Tensor] = {}

    def begin(self, parameter: nn.Parameter, stand_in: Tensor) -> None:
        """Record the stand-in of a parameter."""
        self._parameters[id(stand_in)] = frozenset({id(parameter)})
        self._stand_ins[id(stand_in)] = stand_in

    def parameters_of(self, tensor: Tensor) -> frozenset[int]:
        """Return the ids of the parameters that the tensor depends on."""
        if id(tensor) not in self._parameters and tensor.grad_fn is not None:  # made by a torch.autograd.Function
            self.hold(tensor, frozenset().union(*(self._parameters.get(id(leaf), ()) for leaf in leaves([tensor]))))
        return self._parameters.get(id(tensor), frozenset())

    def is_pooled(self, tensor: Tensor) -> bool:
        """Return whether the tensor depends on pooled tensors only. Its size may then be the same for all image sizes."""
        return id(tensor) in self._pooled

    def is_channels_first(self, tensor: Tensor) -> bool:
        """Return whether the run used the tensor as (N, C, H, W), independently of its shape."""
        for pairs in (self._alike, self._alike[::-1]):
            for pair in pairs:
                if not self._maps.isdisjoint(pair):
                    self._maps.update(pair)
        self._alike = [pair for pair in self._alike if self._maps.isdisjoint(pair)]
        return id(tensor) in self._maps

    def _note_axes(self, name: str, arguments: Sequence[Tensor], output: Tensor) -> None:
        name = name.removeprefix("_") if not name.startswith("__") else name
        activations = [tensor for tensor in arguments if id(tensor) not in self._stand_ins and id(tensor) in self._parameters]
        if name in _POOLS or (activations and name != "interpolate" and all(id(x) in self._pooled for x in activations)):
            self._pooled.add(id(output))
        if name in _OF_MAPS and arguments and arguments[0].ndim == 4:
            self._maps |= {id(arguments[0]), id(output)}
        elif name in _POINTWISE:
            self._alike += [(id(tensor), id(output)) for tensor in activations if tensor.shape == output.shape]

    def hold(self, output: Any, parameters: frozenset[int]) -> None:
        """Record that the tensors of an output depend on these parameters, and on those that were recorded for them before."""
        for _, tensor in named_tensors(output):
            self._parameters[id(tensor)] = self._parameters.get(id(tensor), frozenset()) | parameters
            self.steps.append(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        changes = name in ("__setitem__", "__set__") or (name.endswith("_") and not name.endswith("__")) or name[:3] == "__i"
        found = list(named_tensors(output))
        if found or changes:
            arguments = [tensor for _, tensor in named_tensors([args, kwargs or {}])]
            takes_shape_alone = name.endswith("_like") or name.startswith("new_")
            sources = [] if takes_shape_alone else [self.parameters_of(tensor) for tensor in arguments]
            parameters = frozenset().union(*sources)
            self.hold(output, parameters)
            for _, tensor in found:
                self._note_axes(name, arguments, tensor)
            if changes and args and isinstance(args[0], Tensor):
                whole = args[0]._base if args[0]._is_view() else None
                self.hold([args[0], *([] if whole is None else [whole])], parameters)
        return output


def fixed_layout_of(tensor: Tensor, size: tuple[int, int]) -> Layout | None:
    """Return a map's channels and stride; None if the tensor is not a map that was computed from an image of size `size`."""
    if tensor.ndim != 4 or not tensor.is_floating_point() or tensor.shape[0] != BATCH or not tensor.numel():
        return None
    sides = tensor.shape[2:]
    measured = math.sqrt(math.prod(size) / math.prod(sides))
    for stride in (2.0 ** max(0, round(math.log2(measured))), measured):
        if min(sides) > 1 and all(abs(length / stride - side) <= 1 for length, side in zip(size, sides, strict=True)):
            return Layout(channels=tensor.shape[1], stride=stride)
    return None


def run(
    module: nn.Module, size: tuple[int, int], in_channels: int, *, on_meta: bool, recorder: DependencyRecorder | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Call a module with stand-ins for its parameters and buffers. Return its output and the stand-ins of the parameters."""
    state = {}
    floats = [tensor for tensor in module.parameters() if tensor.is_floating_point()]
    for name, parameter in module.named_parameters():
        value = torch.empty_like(parameter, device="meta") if on_meta else parameter.detach()
        state[name] = value.requires_grad_(value.is_floating_point() or value.is_complex())
        if recorder is not None:
            recorder.begin(parameter, value)
    buffers = {
        name: torch.empty_like(buffer, device="meta") if on_meta else buffer.clone() for name, buffer in module.named_buffers()
    }
    device = "meta" if on_meta else floats[0].device if floats else "cpu"
    shape = (BATCH, in_channels, *size)
    image = (
        torch.linspace(0, 1, math.prod(shape), device=device)
        .reshape(shape)
        .to(floats[0].dtype if floats else torch.get_default_dtype())
    )
    if recorder is not None:
        recorder.hold(image, frozenset())
    with preserve_attributes(module), recorder or nullcontext():
        return torch.func.functional_call(module, {**state, **buffers}, (image,)), state


def set_modes(module: nn.Module, *, training: bool) -> None:
    """Set the attribute `training` of each submodule, and nothing else."""
    for submodule in module.modules():
        submodule.training = training  # not train(), which a module may override


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Restore, on exit, what a forward pass may change: every attribute of every submodule, and the random state."""
    tensors = [*module.parameters(), *module.buffers()]
    accelerators = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in accelerators:
            stack.enter_context(torch.random.fork_rng(devices=[device.index or 0], device_type=device.type))
        stack.enter_context(preserve_attributes(module))
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


_CONTAINERS = (dict, set, list, deque, tuple)


@contextmanager
def preserve_attributes(module: nn.Module) -> Iterator[None]:
    """Restore, on exit, every attribute of every submodule.

    Each run needs a context of its own. Otherwise a cache that one run fills, such as LeViT's attention biases, would hide
    from the next run which parameters the cached values depend on.
    """
    contents: dict[int, tuple[Any, Any]] = {}
    for submodule in module.modules():
        _note_contents(vars(submodule), contents)
    try:
        yield
    finally:
        for container, content in contents.values():
            container.clear()
            container.extend(content) if isinstance(container, list | deque) else container.update(content)


def _note_contents(container: Any, contents: dict[int, tuple[Any, Any]]) -> None:
    """Add a container, and all containers inside it, to `contents`: a mapping from an id to the container and a copy of it."""
    if isinstance(container, nn.Module) or id(container) in contents:
        return
    values = container
    if isinstance(container, dict):
        contents[id(container)] = container, dict(container)
        values = container.values()
    elif not isinstance(container, tuple):
        contents[id(container)] = container, list(container)
    for value in values:
        if isinstance(value, _CONTAINERS):  # tested before the call: most attributes are numbers and flags
            _note_contents(value, contents)
