"""Run models on the meta device in less time, with the memory layouts of a real device.

Tensors on the meta device have a shape and strides, and no values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.benchmark.measuring.operations import is_fused_attention

__all__ = ["FastMeta", "is_channels_last"]

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
    """While the mode is active, operations on meta tensors take less time, and their results have a real device's strides.

    Most kernels of the meta device are written in Python, and take longer than a small convolution on the CPU. So common
    operations return a result of the right shape without their own kernel. The mode changes neither shapes nor dtypes.

    Convolutions and attention on the CPU and on CUDA choose the memory layout of their result by that of their input, but on
    the meta device they do not.
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
            if name == "_native_batch_norm_legit_no_training" or (name == "native_batch_norm" and not args[5]):
                # as on the CPU, there are no statistics to save
                return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
            if name == "native_layer_norm" and args[0].is_floating_point():
                statistics = (*args[0].shape[: args[0].dim() - len(args[1])], *(1 for _ in args[1]))
                result = torch.empty_like(args[0], memory_format=torch.contiguous_format)
                return result, args[0].new_empty(statistics), args[0].new_empty(statistics)
            if name == "addmm" and _is_matrix_product(*args):
                return args[0].new_empty((args[1].shape[0], args[2].shape[1]))
            if name == "convolution" and any(map(is_channels_last, args[:2])):
                return torch.empty_like(func(*args, **kwargs), memory_format=torch.channels_last)
            if name == "scaled_dot_product_attention" and is_fused_attention(*args[:4], **kwargs):
                # As the fused kernels, in the order (N, length, heads, channels).
                return torch.empty_like(args[0].transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        return func(*args, **kwargs)


def _is_matrix_product(bias: Tensor, one: Tensor, other: Tensor) -> bool:
    """Return whether a matrix product of these shapes and dtypes is possible."""
    is_fitting = one.dim() == other.dim() == 2 and one.shape[1] == other.shape[0] and bias.shape == (other.shape[1],)
    return is_fitting and bias.dtype == one.dtype == other.dtype


def is_channels_last(tensor: Tensor) -> bool:
    """Return whether a tensor's channels are next to each other in memory, as in `torch.channels_last`."""
    return tensor.dim() == 4 and suggest_memory_format(tensor) == torch.channels_last


def _are_alike(args: Any, kwargs: Any) -> bool:
    """Return whether all tensors among the arguments have the same shape, strides and dtype.

    For other tensors, the operation's own kernel decides whether they fit, and what the result is.
    """
    first, *others = [leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, Tensor)]
    return all(
        other.shape == first.shape and other.stride() == first.stride() and other.dtype == first.dtype for other in others
    )
