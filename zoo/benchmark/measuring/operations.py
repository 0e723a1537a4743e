"""Count and time the operations of a model. On the meta device, counting them computes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from zoo.benchmark.measuring.clock import read_clock
from zoo.benchmark.operation import Operation

__all__ = ["OperationCounter", "OperationTimer", "is_fused_attention"]

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
    "reduction": "amax amin argmax argmin linalg_vector_norm max mean min prod std std_mean sum var var_mean",
}
"""For some kinds, the names of PyTorch's operations, without underscores at their ends. A view moves no data. An activation
computes more than an addition or a comparison."""

KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}

PARTS_OF_NAMES = {
    "attention": "attention",
    "lstm": "recurrent layer",
    "rnn": "recurrent layer",
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
    """Counts the operations that run while the mode is active. An operation that consists of others is replaced by them.

    Attributes:
        operations: a mapping from each operation to the number of its calls.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[Operation] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        if not name.startswith(WHOLE):
            with self:
                result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        result = self._run(func, args, kwargs)
        self._record(_describe(name, func.overloadpacket, args, kwargs, result))
        return result

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def _record(self, operation: Operation) -> None:
        self.operations[operation] += 1


class OperationTimer(OperationCounter):  # type: ignore[no-untyped-call]
    """Counts and times the operations that run while the mode is active.

    Attributes:
        device: the device of the model.
        seconds: a mapping from each operation to the wall-clock times of its calls.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.seconds: dict[Operation, list[float]] = {}
        self.device = device
        self._latest = 0.0

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        began = read_clock(self.device)
        result = func(*args, **kwargs)
        self._latest = read_clock(self.device) - began
        return result

    def _record(self, operation: Operation) -> None:
        super()._record(operation)
        self.seconds.setdefault(operation, []).append(self._latest)


def _describe(name: str, packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Operation:
    """Describe an operation.

    Args:
        name: its name in `torch.ops.aten`, without underscores at both ends.
        packet: the operation in `torch.ops.aten`, with all its overloads.
        args: its positional arguments.
        kwargs: its keyword arguments.
        result: what it returned.
    """
    kind = KIND_OF.get(name) or next((kind for part, kind in PARTS_OF_NAMES.items() if part in name), "elementwise")
    if kind == "view":
        return Operation(kind=kind)
    outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    shape = outputs[0].shape if outputs else ()
    width, positions = (shape[-1], math.prod(shape[:-1])) if shape else (1, 1)
    if name in ("convolution", "convolution_backward"):
        # The arguments of `convolution` are image, weight, bias, stride, padding, dilation, transposed, output padding and
        # groups. In `convolution_backward`, the gradient of the output precedes them.
        output = args[0] if name == "convolution_backward" else result
        image, weight, *others = args[1:] if name == "convolution_backward" else args
        is_transposed, groups = others[4], others[6]
        kind = _kind_of_convolution(image, weight, groups, is_transposed=is_transposed)
        width, positions = min(weight.shape[:2]), output.shape[0] * math.prod(output.shape[2:])
    inputs = [leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, Tensor)]
    if kind == "attention" and len(args) >= 3:
        mask = "masked " if len(inputs) > 3 else ""
        kind = f"{mask}attention" if is_fused_attention(*args[:4], **kwargs) else f"{mask}attention in steps"
    return Operation(
        kind=kind,
        flops=_flops(name, packet, args, kwargs, result),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs)),
        width=int(width),
        positions=int(positions),
        is_strided=not all(tensor.is_contiguous() for tensor in inputs),
    )


def is_fused_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: object) -> bool:
    """Return whether one kernel computes the attention. If not, PyTorch computes it in several steps, which takes longer."""
    if query.dim() != 4 or (attn_mask is not None and attn_mask.dim() not in (2, 4)):
        return False
    same = all(each.shape[:2] == query.shape[:2] and each.shape[-1] == query.shape[-1] for each in (key, value))
    return same and all(each.stride(-1) == 1 for each in (query, key, value))


def _kind_of_convolution(image: Tensor, weight: Tensor, groups: int, *, is_transposed: bool) -> str:
    if is_transposed:
        return "transposed convolution"
    if groups > 1:
        return "depthwise convolution" if groups == image.shape[1] else "grouped convolution"
    return "convolution 1x1" if math.prod(weight.shape[2:]) == 1 else "convolution"


def _flops(name: str, packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    if name == "scaled_dot_product_attention":
        query, key, value = args[:3]  # (..., length, channels); torch's own formula takes exactly four dimensions
        return int(2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    count = flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=result)) if count else 0
