"""Fuse each convolution with a following sum and activation. oneDNN computes these while the output is still in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zoo.inference.deployment.graph import Graph, argument, input_of, is_call, pair, shape_of

__all__ = ["fuse_activations", "is_available"]

ATEN = torch.ops.aten
CONV = ATEN.conv2d.default
TRANSPOSED = ATEN.conv_transpose2d.input
TYPES = (torch.float32, torch.bfloat16)


def is_available(device: torch.device) -> bool:
    """Return whether this PyTorch has oneDNN's fused convolutions for the device; `torch.compile` uses the same operations."""
    names = ("_convolution_pointwise", "_convolution_transpose_pointwise", "_reorder_convolution_weight")
    is_built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and is_built and all(hasattr(torch.ops.mkldnn, each) for each in names)


def fuse_activations(graph: Graph) -> None:
    """Fuse each convolution with a sum and an activation after it, and convert its weight to oneDNN's own memory layout.

    The fused operations exist only on the CPU, and no export format supports them.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    for conv in graph.calls(CONV, TRANSPOSED):
        weight, bias = graph.constant(conv.args[1]), argument(conv, 2, "bias")
        if weight is None or weight.dtype not in TYPES or (bias is not None and graph.constant(bias) is None):
            continue
        if is_call(conv, CONV):
            order[_fuse(graph, conv, weight, order)] = order[conv]
        elif argument(conv, 6, "groups", 1) == 1:
            order[_fuse_transposed(graph, conv, weight)] = order[conv]
    graph.tidy()


def _fuse(graph: Graph, conv: fx.Node, weight: Tensor, order: dict[fx.Node, int]) -> fx.Node:
    stride, padding, dilation = (list(pair(argument(conv, *fact))) for fact in _FACTS)
    groups = argument(conv, 6, "groups", 1)
    packed = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, dilation, groups, list(shape_of(input_of(conv)))
    )
    bias = argument(conv, 2, "bias")
    held = graph.add_constant(packed, conv)
    facts = (held, bias, padding, stride, dilation, groups)
    total, other = _find_sum(conv, order)
    arguments: tuple[Any, ...]
    if total is not None:
        last, unary = total, None
        following = _only_user(total)
        if following is not None and is_call(following, ATEN.relu.default):
            last, unary = following, "relu"
        arguments = (conv.args[0], other, *facts, "add", 1.0, unary, [], None)
        made = graph.add_call(torch.ops.mkldnn._convolution_pointwise.binary, arguments, conv, like=conv)
    else:
        last, activation = _activation_after(conv)
        arguments = (conv.args[0], *facts, *activation)
        made = graph.add_call(torch.ops.mkldnn._convolution_pointwise.default, arguments, conv, like=conv)
    graph.replace(last, made)
    return made


def _fuse_transposed(graph: Graph, conv: fx.Node, weight: Tensor) -> fx.Node:
    stride, padding, output_padding, dilation = (list(pair(argument(conv, *fact))) for fact in _TRANSPOSED_FACTS)
    packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
        weight, padding, output_padding, stride, dilation, 1, list(shape_of(input_of(conv)))
    )
    last, activation = _activation_after(conv)
    bias = argument(conv, 2, "bias")
    held = graph.add_constant(packed, conv)
    args = (conv.args[0], held, bias, padding, output_padding, stride, dilation, 1, *activation)
    made = graph.add_call(torch.ops.mkldnn._convolution_transpose_pointwise.default, args, conv, like=conv)
    graph.replace(last, made)
    return made


_FACTS = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
_TRANSPOSED_FACTS = ((3, "stride", 1), (4, "padding", 0), (5, "output_padding", 0), (7, "dilation", 1))

_NAMES: dict[Any, str] = {
    ATEN.relu.default: "relu",
    ATEN.sigmoid.default: "sigmoid",
    ATEN.tanh.default: "tanh",
    ATEN.silu.default: "swish",
    ATEN.hardswish.default: "hardswish",
    ATEN.hardsigmoid.default: "hardsigmoid",
}


def _activation_after(conv: fx.Node) -> tuple[fx.Node, tuple[str, list[float], str]]:
    """Return the activation after a convolution, and oneDNN's arguments for it.

    If there is no activation, return the convolution itself in its place.
    """
    user = _only_user(conv)
    if user is None or user.op != "call_function":
        return conv, ("none", [], "")
    if user.target in _NAMES:
        return user, (_NAMES[user.target], [], "")
    if user.target is ATEN.gelu.default:
        return user, ("gelu", [], user.kwargs.get("approximate", "none"))  # type: ignore[return-value]
    if user.target is ATEN.leaky_relu.default:
        return user, ("leaky_relu", [argument(user, 1, "negative_slope", 0.01)], "")
    if user.target is ATEN.hardtanh.default:
        return user, ("hardtanh", [argument(user, 1, "min_val", -1.0), argument(user, 2, "max_val", 1.0)], "")
    return conv, ("none", [], "")


def _find_sum(conv: fx.Node, order: dict[fx.Node, int]) -> tuple[fx.Node, fx.Node] | tuple[None, None]:
    """Return the sum with which a convolution can be fused, and the sum's other summand; None and None if there is none.

    No other operation may use the convolution's output. The other summand must have the convolution's shape and type, and be
    computed before the convolution.
    """
    total = _only_user(conv)
    if total is None or not is_call(total, ATEN.add.Tensor) or total.kwargs:
        return None, None
    other = next((each for each in total.args if each is not conv), None)
    if isinstance(other, fx.Node) and _is_alike(other, conv) and order.get(other, len(order)) < order[conv]:
        return total, other
    return None, None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_alike(other: fx.Node, conv: fx.Node) -> bool:
    """Return whether a summand has the convolution's shape and type, so that the addition does not broadcast or cast."""
    return shape_of(other) == shape_of(conv) and other.meta["val"].dtype == conv.meta["val"].dtype
