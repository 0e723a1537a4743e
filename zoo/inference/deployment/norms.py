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
    """Multiply a batch norm's scale into the weights of the convolutions before it, and its shift into a bias.

    With the statistics that it has learned a batch norm is linear (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2).
    It follows a convolution, or a sum of convolutions.
    """
    for norm in graph.calls(*NORMS):
        nodes = _summands(norm.args[0])
        terms = [node for node in nodes if not is_call(node, ADD)]
        if not all(is_call(term, *CONVOLUTIONS) for term in terms):
            sites.skip(norm, "it follows no convolution")
        elif any(len(node.users) > 1 for node in nodes) or len(set(nodes)) < len(nodes):
            sites.skip(norm, "the convolution's output is used elsewhere as well")
        elif any(is_call(term, TRANSPOSED) and argument(term, 6, "groups", 1) != 1 for term in terms):
            sites.skip(norm, "the transposed convolution is grouped")
        elif not _fold(graph, terms, norm):
            sites.skip(norm, "its numbers are not the same for every image")
        else:
            sites.apply(norm)


def _summands(node: Any) -> list[Any]:
    """Return a node and, if it is a sum, everything that it adds up, through nested sums."""
    if is_call(node, ADD) and not node.kwargs:
        return [node, *(each for term in node.args for each in _summands(term))]
    return [node]


def _fold(graph: Graph, convolutions: list[fx.Node], norm: fx.Node) -> bool:
    """Fold a norm into the convolutions whose sum it normalizes; False where its numbers depend on the image."""
    is_tuple = is_call(norm, NORMS[0])  # the output, and two statistics that nothing uses
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
    # The tuple's users are getitem nodes; only those of the output remain in use.
    for user in list(norm.users) if is_tuple else [norm]:
        if not is_tuple or (user.target is operator.getitem and user.args[1] == 0):
            graph.replace(user, summed)
    return True


def fold_statistics(
    scale: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the factor of each channel, and the offset that is added to it, in double precision."""
    factor = torch.rsqrt(variance.double() + eps)
    if scale is not None:
        factor = factor * scale.double()
    offset = -mean.double() * factor
    return factor, offset if shift is None else offset + shift.double()
