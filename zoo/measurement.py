"""A module run without a trace: stand-ins for its tensors, its state put back, and the layout that its maps show."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["META_SIZES", "REAL_SIZES", "Layout", "layout_of", "run", "set_modes", "untouched"]

META_SIZES = (((512, 768), (1024, 1536)), ((448, 672), (896, 1568)))
REAL_SIZES = (((64, 96), (128, 224)), ((224, 448), (448, 672)))
_BATCH = 2  # train-mode batch normalisation needs two values a channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is known of a map once it was seen at two sizes."""

    channels: int
    stride: float
    channels_last: bool


def layout_of(first: Tensor, second: Tensor, sizes: Sequence[tuple[int, int]]) -> Layout | None:
    """Return what kind of map two tensors show, computed from images of two sizes; None where it is no map."""
    if first.ndim != 4 or second.ndim != 4 or not first.is_floating_point() or first.shape[0] != _BATCH:
        return None
    moving = tuple(axis for axis in range(4) if first.shape[axis] != second.shape[axis])
    if moving not in ((2, 3), (1, 2)):
        return None
    grown = [large - small for small, large in zip(*sizes, strict=True)]
    steps = [second.shape[axis] - first.shape[axis] for axis in moving]
    if min(steps) < 1 or sum(grown) < sum(steps):
        return None
    measured = sum(grown) / sum(steps)
    if any(abs(change / measured - step) > 1.5 for change, step in zip(grown, steps, strict=True)):
        return None  # the axes grow at different rates: tokens by tokens, or W before H
    stride = measured
    for whole in (2.0 ** max(0, round(math.log2(measured))), float(round(measured))):
        if all(abs(change / whole - step) < 1 for change, step in zip(grown, steps, strict=True)):
            stride = whole
            break
    channels = first.shape[3 if moving == (1, 2) else 1]
    return Layout(channels=channels, stride=stride, channels_last=moving == (1, 2))


def run(module: nn.Module, size: tuple[int, int], in_channels: int, *, on_meta: bool) -> tuple[Any, dict[str, Tensor]]:
    """Call the module with stand-ins for its parameters and buffers; return what it gives and the stand-ins."""
    state = {}
    floats = [tensor for tensor in module.parameters() if tensor.is_floating_point()]
    for name, parameter in module.named_parameters():
        value = torch.empty_like(parameter, device="meta") if on_meta else parameter.detach()
        state[name] = value.requires_grad_(value.is_floating_point())
    buffers = {
        name: torch.empty_like(buffer, device="meta") if on_meta else buffer.clone() for name, buffer in module.named_buffers()
    }
    device = "meta" if on_meta else floats[0].device if floats else "cpu"
    shape = (_BATCH, in_channels, *size)
    image = (
        torch.linspace(0, 1, math.prod(shape), device=device)
        .reshape(shape)
        .to(floats[0].dtype if floats else torch.get_default_dtype())
    )
    return torch.func.functional_call(module, {**state, **buffers}, (image,)), state


def set_modes(module: nn.Module, *, training: bool) -> None:
    """Set the mode of each submodule, and nothing else."""
    for submodule in module.modules():
        submodule.training = training  # not train(): a module may do more in its own


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put back what a forward pass may change: every attribute of every submodule, and the random state."""
    before = [
        (vars(submodule), {name: _copied(value) for name, value in vars(submodule).items()}) for submodule in module.modules()
    ]
    tensors = [*module.parameters(), *module.buffers()]
    accelerators = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
    python_state = random.getstate()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in accelerators:
            stack.enter_context(torch.random.fork_rng(devices=[device.index or 0], device_type=device.type))
        try:
            yield
        finally:
            random.setstate(python_state)
            for attributes, values in before:
                attributes.clear()
                for name, (value, content) in values.items():
                    if content is not None:
                        value.clear()
                        value.extend(content) if isinstance(value, list) else value.update(content)
                    attributes[name] = value


def _copied(value: Any) -> tuple[Any, Any]:
    """Return a value, and the content of a plain container: it is put back into the very same one."""
    return value, copy.copy(value) if isinstance(value, dict | set | list) else None
