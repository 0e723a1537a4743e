"""Remove no-op operations."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from zoo.inference.deployment.graph import Graph, argument, is_call, shape_of
from zoo.inference.deployment.sites import Sites

__all__ = ["INTERPOLATIONS", "drop_identities"]

ATEN = torch.ops.aten
COPIES = (ATEN.clone.default, ATEN.alias.default, ATEN.detach.default, ATEN.contiguous.default)
INTERPOLATIONS = (
    ATEN.upsample_nearest2d.vec,
    ATEN.upsample_nearest2d.default,
    ATEN._upsample_nearest_exact2d.vec,
    ATEN._upsample_nearest_exact2d.default,
    ATEN.upsample_bilinear2d.vec,
    ATEN.upsample_bilinear2d.default,
    ATEN.upsample_bicubic2d.vec,
    ATEN.upsample_bicubic2d.default,
)


def drop_identities(graph: Graph, sites: Sites) -> None:
    """Remove copies, dropout, slices that select everything, and resizes to the current size."""
    for node in graph.nodes:
        if node.op != "call_function" or not node.users or not isinstance(node.meta.get("val"), Tensor):
            continue
        if _is_identity(node):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            graph.replace(node, source)
            sites.apply(node)


def _is_identity(node: fx.Node) -> bool:
    if is_call(node, ATEN.dropout.default):
        return not argument(node, 2, "train")
    if is_call(node, *COPIES):
        return True
    if is_call(node, ATEN.slice.Tensor, *INTERPOLATIONS):
        return shape_of(node) == shape_of(node.args[0])  # type: ignore[arg-type]
    return False
