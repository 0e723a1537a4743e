"""Count the work of a model by kind of operation: FLOPs, bytes and calls. On the meta device, this computes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from zoo.benchmark.messages import Work

__all__ = ["OperationCounter"]

WHOLE = ("scaled_dot_product_attention", "upsample")
"""Beginnings of the names of operations that run as one kernel, although PyTorch can also replace them by others."""

KINDS = {
    "view": "alias as_strided chunk detach diagonal empty empty_like expand lift_fresh movedim narrow new_empty permute "
    "reshape reshape_alias select slice split split_with_sizes squeeze t transpose unbind unflatten unfold unsafe_view "
    "unsqueeze view view_as",
    "matrix product": "addmm mm",
    "batched matrix product": "baddbmm bmm",
    "copy": "cat clone constant_pad_nd copy embedding flip gather im2col col2im index index_select native_channel_shuffle "
    "pixel_shuffle pixel_unshuffle reflection_pad2d repeat replication_pad2d roll stack take to_copy unsafe_index",
    "activation": "elu erf exp gelu hardsigmoid hardswish log log_sigmoid_forward mish pow rsqrt sigmoid silu softplus sqrt "
    "tanh",
}
"""For some kinds, the names of PyTorch's operations, without underscores at their ends. A view moves no data. An activation
computes more than an addition or a comparison."""

KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}

PARTS_OF_NAMES = {
    "attention": "attention",
    "batch_norm": "batch norm",
    "layer_norm": "norm",
    "group_norm": "norm",
    "instance_norm": "norm",
    "softmax": "softmax",
    "upsample": "resize",
    "pool": "resize",
    "grid_sampler": "resize",
}
"""For other kinds, a part of the operations' names."""


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the work of the operations that run while the mode is active.

    The FLOPs are those of `torch.utils.flop_counter`: of convolutions, matrix products and attention, with a multiply-add as
    two. The bytes of an operation are the sizes of all tensors that it reads or writes. An operation that consists of other
    operations is replaced by them.

    Attributes:
        work: a mapping from the kind of operation to the sum of its work.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work: dict[str, Work] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        if not name.startswith(WHOLE):
            with self:
                result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        result = func(*args, **kwargs)
        kind = _kind(name, args)
        if kind == "view":
            work = Work(calls=1)
        else:
            tensors = [leaf for leaf in tree_leaves([args, kwargs, result]) if isinstance(leaf, Tensor)]
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            work = Work(flops=_flops(name, func.overloadpacket, args, kwargs, result), bytes=size, calls=1)
        self.work[kind] = self.work.get(kind, Work()) + work
        return result


def _kind(name: str, args: Sequence[Any]) -> str:
    """Return the kind of an operation.

    Operations of a kind take about the same time for each FLOP, each byte and each call.

    Args:
        name: the operation's name in `torch.ops.aten`, without underscores at both ends.
        args: its positional arguments.
    """
    if name in ("convolution", "convolution_backward"):
        # The arguments of `convolution` are image, weight, bias, stride, padding, dilation, transposed, output padding and
        # groups. In `convolution_backward`, the gradient of the output precedes them.
        image, weight, *others = args[1:] if name == "convolution_backward" else args
        is_transposed, groups = others[4], others[6]
        if is_transposed:
            return "transposed convolution"
        if groups > 1:
            return "depthwise convolution" if groups == image.shape[1] else "grouped convolution"
        return "convolution 1x1" if math.prod(weight.shape[2:]) == 1 else "convolution"
    if name in KIND_OF:
        return KIND_OF[name]
    return next((kind for part, kind in PARTS_OF_NAMES.items() if part in name), "elementwise")


def _flops(name: str, packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    if name == "scaled_dot_product_attention":
        query, key, value = args[:3]  # (..., length, channels); torch's own formula takes exactly four dimensions
        return int(2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    count = flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=result)) if count else 0
