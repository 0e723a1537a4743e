"""Trace a module with torch.fx, except for submodules whose behavior a graph would not reproduce."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks

from zoo.model.probing.measurement import preserve_attributes

__all__ = ["ROOT", "Traced", "trace"]

ROOT = "module"
"""The path of the module inside the `_Holder` that is traced."""

_DEVICES = ("cpu", "cuda", "mps", "xpu")  # each has its own autocast state


@dataclass(slots=True, kw_only=True)
class Traced:
    """The graph of a whole module, and the names of its values.

    Attributes:
        module: the graph, and the modules that it calls, which are those of the traced module.
        names: (name, depth, node) of each value, in the order of computation. The depth is that of the forward which computes
            the value, or which calls the submodule that returns the value. It is 1 for the module's own forward, 2 for the
            forwards of its direct submodules, and so on.
        scopes: for each node, the path of the module whose forward created it.
        num_leaves: the number of modules that were not traced, but are called as a whole.
        changing: the nodes that changed one of their input tensors in place when the graph was run.
    """

    module: fx.GraphModule
    names: list[tuple[str, int, fx.Node]] = field(default_factory=list)
    scopes: dict[fx.Node, str] = field(default_factory=dict)
    num_leaves: int = 0
    changing: set[fx.Node] = field(default_factory=set)

    def returned(self) -> dict[str, fx.Node]:
        """Return a mapping from each key in the module's output to the node that the module returns under this key."""
        found: dict[str, fx.Node] = {}

        def collect(value: Any, name: str) -> None:
            if isinstance(value, fx.Node) and value.op == "call_function" and isinstance(value.target, type):
                # a named tuple or a dataclass, which fx creates by calling its class
                collect(value.kwargs if is_dataclass(value.target) else value.args, name)
            elif isinstance(value, fx.Node):
                found[name] = value
            elif isinstance(value, dict | list | tuple):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    collect(item, f"{name}.{key}" if name else str(key))

        collect(self.module.graph.output_node().args[0], "")
        return found


class _Holder(nn.Module):
    """Calls the module as a user does. Constants that fx stores are set on this holder, not on the module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Any:
        return self.module(image)


class _UntraceableError(Exception):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Surroundings:
    """The state that a context can change but a graph does not record: gradient mode, inference mode, autocast and hooks."""

    def __init__(self) -> None:
        self._is_outermost = False
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self._is_outermost = True
        return tensor

    def now(self) -> tuple[object, ...]:
        """Return the current state, which can be compared with the state at another time.

        Call this method only in the context `hooks`. If other saved-tensor hooks are active inside that context, such as those
        of gradient checkpointing, they take the place of `hooks`. The returned state then differs from the state without them.
        """
        nesting = torch.autocast_increment_nesting()  # a disabled autocast counts too, since it turns off an outer autocast
        torch.autocast_decrement_nesting()
        autocast = [(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES]
        self._is_outermost = False
        with torch.inference_mode(False), torch.enable_grad():
            torch.ones((), requires_grad=True).exp()
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), nesting, autocast, self._is_outermost


class _Proxy(fx.Proxy):
    """Raises an error if an attribute is set (`self.weight.data = ...`), since a graph would not record it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise TypeError(f"a graph does not record that .{name} is set")
        object.__setattr__(self, name, value)


def _is_opaque(module: nn.Module) -> bool:
    """Return whether a module has hooks or overrides `train`, which a graph would not reproduce.

    A `torch.fx.GraphModule` may override `train`, as torchvision's feature extractors do to switch between two graphs. zoo
    traces both modes and compares the traces.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    has_own_train = type(module).train is not nn.Module.train and not isinstance(module, fx.GraphModule)
    return any(hooks) or has_own_train


class _Tracer(fx.Tracer):
    """Records a module's graph.

    It raises an `_UntraceableError` for a module whose forward runs operations in a context such as `torch.no_grad()`, since a
    graph would not reproduce the context.
    """

    proxy_buffer_attributes = True  # otherwise, values that are computed from buffers alone would become constants

    def __init__(self, leaves: set[str], surroundings: _Surroundings) -> None:
        super().__init__()
        self.leaves = leaves
        self.surroundings = surroundings
        self.entered = [(ROOT, surroundings.now())]  # for each running module: its path, and the state when it was called
        self.named: list[tuple[str, int, fx.Node]] = []
        self.scopes: dict[fx.Node, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == ROOT:
            return False
        return _is_opaque(m) or module_qualified_name in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.path_of_module(m)
        self._check_surroundings()
        self.entered.append((path, self.surroundings.now()))
        try:
            returned = super().call_module(m, forward, args, kwargs)
        except _UntraceableError:
            raise
        except Exception as cause:
            raise _UntraceableError(path) from cause
        finally:
            self.entered.pop()
        if isinstance(returned, fx.Proxy) and path != ROOT and not self.is_leaf_module(m, path):
            self.named.append((path, path.count("."), returned.node))
        return returned

    def _check_surroundings(self) -> None:
        path, state = self.entered[-1]
        if self.surroundings.now() != state:
            raise _UntraceableError(path)

    def create_proxy(self, kind: str, *arguments: Any, **keywords: Any) -> fx.Proxy:
        self._check_surroundings()
        proxy = super().create_proxy(kind, *arguments, **keywords)
        node, scope = proxy.node, self.scope.module_path
        self.scopes[node] = scope
        if kind == "call_module":
            self.named.append((str(node.target), scope.count("."), node))
        elif kind.startswith("call_"):
            self.named.append((f"{scope}.{node.name}", scope.count(".") + 1, node))
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and a.requires_grad and not isinstance(a, nn.Parameter):
            raise TypeError("a value computed from parameters outside the graph would become a constant")
        return super().create_arg(a)


def trace(module: nn.Module, leaves: set[str]) -> Traced | None:
    """Return the module's graph; None if its own forward cannot be traced.

    A submodule that cannot be traced is called by the graph as a whole. Its path and the paths of all other submodules of the
    same class are added to `leaves`.
    """
    if _is_opaque(module):
        return None
    paths = {f"{ROOT}.{path}": submodule for path, submodule in module.named_modules() if path}
    while True:
        holder = _Holder(module)
        surroundings = _Surroundings()
        random_states = _random_states()
        try:
            with surroundings.hooks, preserve_attributes(module):
                tracer = _Tracer(leaves, surroundings)
                graph = tracer.trace(holder)
        except _UntraceableError as error:
            if error.path not in paths or error.path in leaves:
                return None
            leaves |= {path for path, submodule in paths.items() if type(submodule) is type(paths[error.path])}
            continue
        except Exception:  # noqa: BLE001 (the module's code failed for a proxy; the module is used without a graph)
            return None
        if _random_states() != random_states:
            return None  # a random number was drawn, which would become a constant
        names = _unique(tracer.named)
        for node in graph.nodes:
            node.type = None  # a string annotation, with which torch 2.9 cannot pickle the graph
        return Traced(module=fx.GraphModule(holder, graph), names=names, scopes=tracer.scopes, num_leaves=len(leaves))


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


def _unique(named: list[tuple[str, int, fx.Node]]) -> list[tuple[str, int, fx.Node]]:
    seen: Counter[str] = Counter()
    unique = []
    for path, depth, node in named:
        name = path.removeprefix(f"{ROOT}.")
        unique.append((f"{name}_{seen[name]}" if seen[name] else name, depth, node))
        seen[name] += 1
    return unique
