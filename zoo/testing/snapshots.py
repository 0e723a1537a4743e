"""Copy and compare the state of a module: its tensors and attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["difference", "distance", "same", "scale", "snapshot", "state_of"]

MACHINERY = frozenset(vars(nn.Module()))
"""The names of the attributes that every module has. `snapshot` leaves these attributes out.

The parameters, buffers and submodules in them are part of the snapshot under their own names."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all tensors in the state dict, and of the buffers that are not in the state dict."""
    return {name: tensor.detach().clone() for name, tensor in {**dict(module.named_buffers()), **module.state_dict()}.items()}


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Return a mapping from dotted names to copies of the tensors and attributes of a module and its submodules.

    The attributes in `MACHINERY` are left out. Tensors and built-in containers are copied. Of other values, the mapping
    contains the original object.
    """
    found: dict[str, Any] = dict(state_of(module))
    for path, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            if name not in MACHINERY:
                found[f"{path}.{name}".lstrip(".")] = _copy(value)
    return found


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ, or that occur in only one of the two mappings."""
    return [
        name for name in {**before, **after} if name not in before or name not in after or not same(before[name], after[name])
    ]


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal.

    Tensors are compared by element (NaN equals NaN), mappings, lists and tuples by entry, and values of the types in `PLAIN`
    by `==`. Two values of any other types count as equal.
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return one.is_meta or torch.equal(one, other) or bool(torch.equal(one.isnan(), other.isnan()) and _alike(one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, PLAIN) or isinstance(other, PLAIN):
        return type(one) is type(other) and (one == other or (one != one and other != other))
    return True  # a value of another type, which may not equal its own copy


def scale(tensor: Tensor) -> float:
    """Return the largest absolute value of a tensor; 0 if it is empty."""
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def distance(one: list[Tensor], other: list[Tensor]) -> str:
    """Return the largest absolute difference between the maps of two lists, as text. Maps of different shapes are skipped."""
    pairs = [(first, second) for first, second in zip(one, other, strict=False) if first.shape == second.shape]
    return f"{max((float((first - second).abs().max()) for first, second in pairs), default=0.0):.3g}"


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one[~one.isnan()], other[~other.isnan()])


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copy(entry) for name, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copy, value))
    return copy.copy(value) if isinstance(value, set | bytearray) else value
