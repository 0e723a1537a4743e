"""Run models on the meta device in less time. Tensors on this device have a shape and no values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["FastMeta"]

ELEMENTWISE = frozenset(
    {
        "add",
        "clamp",
        "clamp_min",
        "div",
        "elu",
        "exp",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "mish",
        "mul",
        "neg",
        "pow",
        "relu",
        "rsqrt",
        "sigmoid",
        "silu",
        "sqrt",
        "sub",
        "tanh",
    }
)
"""Operations that compute each element by itself, and return floats for floats."""
IN_PLACE = frozenset(
    {
        *(f"{name}_" for name in ELEMENTWISE),
        "bernoulli_",
        "copy_",
        "erfinv_",
        "exponential_",
        "fill_",
        "normal_",
        "random_",
        "uniform_",
        "zero_",
    }
)
"""Operations that only change the values of their first argument."""


class FastMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While the mode is active, common operations on meta tensors return a result of the right shape without their own kernel.

    Most kernels of the meta device are written in Python, and take longer than a small convolution on the CPU. The mode changes
    neither shapes, dtypes nor strides.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the result of an operation."""
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_meta and "out" not in kwargs:
            if name in IN_PLACE and _are_alike(args, kwargs):
                return args[0]
            if name in ELEMENTWISE and args[0].is_floating_point() and _are_alike(args, kwargs):
                return torch.empty_like(args[0])
            if name == "native_batch_norm" and not args[5]:  # as on the CPU, there are no statistics to save
                return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        return func(*args, **kwargs)


def _are_alike(args: Any, kwargs: Any) -> bool:
    """Return whether all tensors among the arguments have the same shape, strides and dtype.

    For other tensors, the operation's own kernel decides whether they fit, and what the result is.
    """
    first, *others = [leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, Tensor)]
    return all(
        other.shape == first.shape and other.stride() == first.stride() and other.dtype == first.dtype for other in others
    )
