"""Replace operations that do not depend on the pixels with their results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zoo.inference.deployment.graph import Graph
from zoo.inference.deployment.sites import Sites

__all__ = ["fold_constants"]

SMALL = 2**20
GROWTH = 4


def fold_constants(graph: Graph, sites: Sites) -> None:
    """Compute the operations whose results depend only on weights and the image's size, and store the results as constants.

    Examples are the standardization of weights, the resizing of position embeddings, and the look-up of bias tables. An
    operation is kept if its result is much larger than its inputs (more than 4 times their size, and more than 1 MiB).
    """
    for node in graph.nodes:
        if node.op != "call_function" or not node.users or not _is_foldable(graph, node):
            continue
        held = [tensor for each in node.all_input_nodes if (tensor := graph.constant(each)) is not None]
        with torch.no_grad():
            args: Any = fx.node.map_arg(node.args, graph.constant)
            kwargs: Any = fx.node.map_arg(node.kwargs, graph.constant)
            value = node.target(*args, **kwargs)  # type: ignore[operator]
        if not isinstance(value, Tensor):
            continue
        if _bytes(value) > max(SMALL, GROWTH * sum(map(_bytes, held))):
            sites.skip(node, "the result is much larger than its inputs")
            continue
        graph.replace(node, graph.add_constant(value.clone(), node))
        sites.apply(node)


def _is_foldable(graph: Graph, node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target._schema.is_mutable or not isinstance(node.meta.get("val"), Tensor):
        return False
    return all(graph.constant(each) is not None for each in node.all_input_nodes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
