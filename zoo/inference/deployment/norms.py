"""Fold batch norms into the convolutions before them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from zoo.inference.deployment.graph import Graph, argument, is_call
from zoo.inference.deployment.sites import Sites

__all__ = ["fold_norms"]

ATEN = torch.ops.aten
NORMS = (ATEN._native_batch_norm_legit_no_training.default, ATEN.batch_norm.default)
ADD = ATEN.add.Tensor
TRANSPOSED = ATEN.conv_transpose2d.input
CONVOLUTIONS = (ATEN.conv2d.default, ATEN.conv2d.padding, TRANSPOSED)


def fold_norms(graph: Graph, sites: Sites) -> None:
    """Fold the scale of a batch norm into the weights of the convolutions before it, and its shift into a bias.

    With its running statistics, a batch norm is linear (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2). The pass
    applies to a batch norm after a convolution, or after a sum of convolutions.
    """
    for norm in graph.calls(*NORMS):
        nodes = _summands(norm.args[0])
        terms = [node for node in nodes if not is_call(node, ADD)]
        if not all(is_call(term, *CONVOLUTIONS) for term in terms):
            sites.skip(norm, "it does not follow a convolution")
        elif any(len(node.users) > 1 for node in nodes) or len(set(nodes)) < len(nodes):
            sites.skip(norm, "the convolution's output is used elsewhere as well")
        elif any(is_call(term, TRANSPOSED) and argument(term, 6, "groups", 1) != 1 for term in terms):
            sites.skip(norm, "the transposed convolution is grouped")
        elif not _fold(graph, terms, norm):
            sites.skip(norm, "its statistics or weights depend on the image")
        else:
            sites.apply(norm)


def _summands(node: Any) -> list[Any]:
    """Return a node and, if the node is a sum, all of its summands, including those of nested sums."""
    if is_call(node, ADD) and not node.kwargs:
        return [node, *(each for term in node.args for each in _summands(term))]
    return [node]


def _fold(graph: Graph, convolutions: list[fx.Node], norm: fx.Node) -> bool:
    """Fold a batch norm into the convolutions before it.

    If there are several convolutions, the norm's input is the sum of their outputs. Return False if the norm's statistics, or
    any weights, depend on the image.
    """
    is_tuple = is_call(norm, NORMS[0])  # a tuple of the output and two statistics that nothing uses
    if not is_tuple and argument(norm, 5, "training"):
        return False
    # scale, shift, mean and variance of the norm, then weight and bias of each convolution
    arguments = [*norm.args[1:5]]
    for convolution in convolutions:
        arguments += [argument(convolution, 1, "weight"), argument(convolution, 2, "bias")]
    held = [graph.constant(each) for each in arguments]
    if any(tensor is None and each is not None for tensor, each in zip(held, arguments, strict=True)):
        return False
    scale, shift, mean, variance, *pairs = held
    if mean is None or variance is None:
        return False
    factor, offset = fold_statistics(scale, shift, mean, variance, norm.args[6 if is_tuple else 7])  # type: ignore[arg-type]
    # norm(a + b) = factor * a + factor * b + offset: each convolution is scaled, and the first one adds the offset.
    for index, convolution in enumerate(convolutions):
        weight, bias = pairs[2 * index : 2 * index + 2]
        assert weight is not None
        shape = [1] * weight.ndim
        shape[1 if is_call(convolution, TRANSPOSED) else 0] = -1  # the axis of output channels
        total = torch.zeros_like(offset) if bias is None else bias.double() * factor
        if index == 0:
            total = total + offset
        has_bias = bias is not None or index == 0
        made = graph.add_call(
            convolution.target,  # type: ignore[arg-type]
            (
                convolution.args[0],
                graph.add_constant((weight.double() * factor.reshape(shape)).to(weight.dtype), convolution),
                graph.add_constant(total.to(weight.dtype), convolution) if has_bias else None,
                *convolution.args[3:],
            ),
            convolution,
            like=convolution,
        )
        made.kwargs = {name: value for name, value in convolution.kwargs.items() if name not in ("weight", "bias")}
        graph.replace(convolution, made)
    summed: fx.Node = norm.args[0]  # type: ignore[assignment]
    # The users of a tuple are getitem nodes, of which only those for the output are used.
    for user in list(norm.users) if is_tuple else [norm]:
        if not is_tuple or (user.target is operator.getitem and user.args[1] == 0):
            graph.replace(user, summed)
    return True


def fold_statistics(
    scale: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each channel in double precision: norm(x) = factor * x + offset."""
    factor = torch.rsqrt(variance.double() + eps)
    if scale is not None:
        factor = factor * scale.double()
    offset = -mean.double() * factor
    return factor, offset if shift is None else offset + shift.double()
