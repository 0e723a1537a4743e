"""Find a module's feature maps in its traced graph, which must compute the same values and gradients as the module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from zoo.model.probing.extraction import differing_scopes
from zoo.model.probing.measurement import DependencyRecorder, run, set_modes
from zoo.model.probing.observation import Observation
from zoo.model.probing.sightings import Sighting, select_maps
from zoo.model.probing.tracing import Traced, trace

__all__ = ["trace_maps"]


def trace_maps(
    observation: Observation, returned: list[Sighting], needed: frozenset[int]
) -> tuple[Traced | None, list[Sighting]]:
    """Return a module's graph, and the maps as nodes of the graph.

    Return None and [] if no graph can be traced that computes the same values and gradients as the module.

    Args:
        observation: the observation of the module.
        returned: the maps that the module's forward returns; empty if the maps are inside the module.
        needed: the ids of the parameters that the module's last map depends on.
    """
    leaves: set[str] = set()
    # Trace until the same operations compute the maps in train and eval mode. A submodule in which the two modes differ is
    # called as a whole.
    for _ in range(8):
        set_modes(observation.module, training=False)
        in_eval = trace(observation.module, leaves)
        set_modes(observation.module, training=True)
        in_train = None if in_eval is None else trace(observation.module, leaves)
        set_modes(observation.module, training=False)
        if in_eval is None or in_train is None:
            return None, []
        if in_eval.num_leaves != len(leaves):
            continue  # the second trace found more modules that cannot be traced
        maps = _find_in_graph(observation, in_eval, returned, needed)
        if maps is None:
            return None, []
        names = {name: node for name, _, node in in_train.names}
        of_eval = {node: name for name, _, node in in_eval.names}
        sources = [sighting.source for sighting in maps]
        partners = [names[of_eval[node]] for node in sources if of_eval[node] in names]
        if len(partners) < len(sources):
            sources, partners = [*in_eval.scopes], [*in_train.scopes]
        differing = differing_scopes(in_eval, sources, in_train, partners, are_returned=bool(returned))
        if differing is None:
            return None, []
        if not differing:
            return (in_eval, maps) if _computes_the_same(observation, in_eval) else (None, [])
        leaves |= differing
    return None, []


def _computes_the_same(observation: Observation, traced: Traced) -> bool:
    """Return whether the graph computes the same values and gradients as the module.

    The two can differ, since a `forward` method can run other code for fx's proxies than for tensors.
    """
    if any(parameter.is_meta for parameter in observation.module.parameters()):
        return True
    expected = observation.own_values_and_gradients
    return expected is None or _are_close(expected, observation.values_and_gradients(traced.module, "module."))


def _find_in_graph(
    observation: Observation, traced: Traced, returned: list[Sighting], needed: frozenset[int]
) -> list[Sighting] | None:
    """Return the maps as nodes of the graph; None if the graph fails, or does not return the maps that the module returns."""
    # The graph runs at the same two sizes as the module did, so that each node's tensors show whether it is a map.
    first: dict[fx.Node, Tensor] = {}
    second: dict[fx.Node, Tensor] = {}
    parameters: dict[fx.Node, frozenset[int]] = {}
    recorders = (DependencyRecorder(), DependencyRecorder())
    try:
        for size, tensors, recorder in zip(observation.sizes, (first, second), recorders, strict=True):

            def see(
                node: fx.Node,
                tensor: Tensor,
                tensors: dict[fx.Node, Tensor] = tensors,
                recorder: DependencyRecorder = recorder,
            ) -> None:
                tensors[node] = tensor
                parameters.setdefault(node, recorder.parameters_of(tensor))

            run(
                _ObservedGraph(traced.module, see, traced.changing.add),
                size,
                observation.in_channels,
                on_meta=observation.on_meta,
                recorder=recorder,
            )
    except Exception:  # noqa: BLE001 (fx misread the module, so the module is used without a graph)
        return None
    nodes = traced.returned()
    if returned:
        # The maps that the module returns must be nodes with the same layout. Otherwise fx misread the forward.
        if any(not isinstance(sighting.value, str) or sighting.value not in nodes for sighting in returned):
            return None
        maps = []
        for sighting in returned:
            node = nodes[sighting.value]
            layout = observation.layout((first.get(node), second.get(node)), recorders[0])
            if layout != sighting.layout or node not in {entry for _, _, entry in traced.names}:
                return None
            maps.append(replace(sighting, value=node, source=node, parameters=parameters[node]))
        return maps
    # Without returned maps, every named value with the layout of a map is a candidate, unless it depends on the image only.
    sightings = []
    for name, depth, node in traced.names:
        learned = parameters.get(node) or not observation.has_parameters()
        layout = observation.layout((first.get(node), second.get(node)), recorders[0]) if learned else None
        if layout is not None:
            sightings.append(
                Sighting(name=name, depth=depth, value=node, source=node, layout=layout, parameters=parameters[node])
            )
    return select_maps(sightings, needed)


def _are_close(expected: dict[str, Tensor], found: dict[str, Tensor] | None) -> bool:
    """Return whether two runs returned tensors of the same names, shapes and dtypes, with values that are close."""
    if found is None or expected.keys() != found.keys():
        return False
    for key, tensor in expected.items():
        other = found[key]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            return False
        sizes = tensor.abs() if tensor.is_complex() else tensor.float().abs()
        scale = float(sizes.nan_to_num().max()) if tensor.numel() else 0.0
        if not torch.allclose(tensor, other, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            return False
    return True


class _ObservedGraph(nn.Module):
    """Runs a graph node by node. It reports each tensor, and each node that changes one of its inputs in place."""

    def __init__(
        self, graph: fx.GraphModule, see: Callable[[fx.Node, Tensor], None], see_changing: Callable[[fx.Node], None]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.see = see
        self.see_changing = see_changing

    def forward(self, image: Tensor) -> Any:
        see, see_changing = self.see, self.see_changing

        class Interpreter(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                inputs = [self.env[node] for node in n.all_input_nodes if isinstance(self.env.get(node), Tensor)]
                versions = [tensor._version for tensor in inputs]
                value = super().run_node(n)
                if [tensor._version for tensor in inputs] != versions:
                    see_changing(n)
                if isinstance(value, Tensor):
                    see(n, value)
                return value

        return Interpreter(self.graph).run(image)
