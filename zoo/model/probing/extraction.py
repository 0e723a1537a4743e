"""Extract an encoder from a module's graph: a plain graph that computes only the encoder's maps."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from zoo.model.probing.measurement import Layout, tokens_to_map
from zoo.model.probing.tracing import ROOT, Traced

__all__ = ["cut", "differing_scopes"]

_IN_PLACE = {operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv}


def cut(
    traced: Traced, nodes: Sequence[fx.Node], layouts: Sequence[Layout], original: nn.Module, *, are_returned: bool
) -> fx.GraphModule:
    """Return a plain graph module that returns these nodes as NCHW maps, and contains only what they depend on.

    The graph calls the submodules of the original module, under the same names. Only the modules that contain these submodules
    are new.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    root = nn.Module()
    targets = []
    for node in _select_needed(traced, nodes, are_returned=are_returned):
        copies[node] = graph.node_copy(node, lambda other: copies[other])
        if node.op in ("get_attr", "call_module"):
            targets.append(str(node.target))
            copies[node].target = targets[-1].removeprefix(f"{ROOT}.")
    for target in sorted(targets, key=len):  # a module is attached before the tensors inside it
        _attach(root, target.removeprefix(f"{ROOT}."), operator.attrgetter(target)(traced.module))
    image = next(node for node in graph.nodes if node.op == "placeholder")
    maps = []
    for node, layout in zip(nodes, layouts, strict=True):
        x = copies[node]
        if layout.tokens is not None:
            tokens = layout.tokens
            x = graph.call_function(tokens_to_map, (x, image, tokens.num_prefix_tokens, tokens.patch_size))
        elif layout.channels_last:
            x = graph.call_method("permute", (x, 0, 3, 1, 2))
        maps.append(x)
    graph.output(maps)
    encoder = fx.GraphModule(root, graph, class_name=f"{type(original).__name__}Encoder")
    originals = dict(original.named_modules())
    for path, submodule in encoder.named_modules():
        if path in originals and submodule is not originals[path]:  # a new container
            submodule.training = originals[path].training
    return encoder


def _attach(root: nn.Module, target: str, value: Any) -> None:
    *path, name = target.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = getattr(root, step)
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and not hasattr(root, name):
        root.register_buffer(name, value)
    elif not hasattr(root, name):
        setattr(root, name, value)


def _select_needed(traced: Traced, chosen: Iterable[fx.Node], *, are_returned: bool) -> list[fx.Node]:
    """Return the image's node and every node that the chosen nodes depend on.

    Operations that change one of these nodes or a buffer in place are included. If the module itself returns the chosen
    nodes, operations that change them in place afterwards are included as well.
    """
    graph, needed = traced.module.graph, set(chosen)
    for node in reversed(graph.nodes):
        if node.op == "output":
            continue
        is_in_place = node in traced.changing or _is_in_attach(node)
        changed = _find_changed(node) if is_in_place and (are_returned or _is_before_any(node, needed)) else set()
        if node in needed or changed & needed or any(each.op == "get_attr" for each in changed):
            needed |= {node, *node.all_input_nodes}
    return [node for node in graph.nodes if node in needed or node.op == "placeholder"]


def _is_in_attach(node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(node.graph.owning_module.get_submodule(str(node.target)), "inplace", False))  # type: ignore[union-attr]
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    called = node.op in ("call_function", "call_method")
    return called and (node.target in _IN_PLACE or _has_inplace_argument(node) or (name[-1:] == "_" and name[-2:] != "__"))


def _has_inplace_argument(node: fx.Node) -> bool:
    """Return whether a function is called with `inplace=True`, passed by name or by position."""
    if "inplace" in node.kwargs or not callable(node.target):
        return bool(node.kwargs.get("inplace"))
    try:
        return bool(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments.get("inplace"))
    except (TypeError, ValueError):  # a built-in without a signature
        return False


def _find_changed(node: fx.Node) -> set[fx.Node]:
    """Return the nodes that an in-place node changes: its first argument, and all nodes that may share memory with it."""
    changed = set()
    base = node.args[0] if node.args else None
    while isinstance(base, fx.Node) and base not in changed:
        changed.add(base)
        base = base.args[0] if base.op in ("call_function", "call_method") and base.args else None
    return changed


def _is_before_any(node: fx.Node, needed: set[fx.Node]) -> bool:
    return any(node < other for other in needed)


def differing_scopes(
    first: Traced, firsts: Sequence[fx.Node], second: Traced, seconds: Sequence[fx.Node], *, are_returned: bool
) -> set[str] | None:
    """Return the paths of the submodules whose own code ran differently in two traces.

    Return None if they cannot be determined, or if the code of the traced module itself ran differently.
    """
    one = _signatures(_select_needed(first, firsts, are_returned=are_returned), first.scopes)
    other = _signatures(_select_needed(second, seconds, are_returned=are_returned), second.scopes)
    if one == other:
        return set()
    scopes = {entry[0] for entry in [*one, *other]}
    differing = {scope for scope in scopes if [e[:4] for e in one if e[0] == scope] != [e[:4] for e in other if e[0] == scope]}
    return differing if differing and not differing & {"", ROOT} else None


def _signatures(nodes: Sequence[fx.Node], scopes: Mapping[fx.Node, str]) -> list[tuple[str, str, str, str, tuple[int, ...]]]:
    index = {node: number for number, node in enumerate(nodes)}
    signatures = []
    for node in nodes:
        constants = fx.node.map_arg((node.args, node.kwargs), lambda _: None)
        inputs = tuple(index[other] for other in node.all_input_nodes)
        signatures.append((scopes.get(node, ""), node.op, str(node.target), repr(constants), inputs))
    return signatures
