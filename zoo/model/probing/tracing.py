"""Trace a module's graph with torch.fx, but for submodules whose behavior a graph would leave out."""

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
"""The path of the traced module in the holder that is traced."""

_DEVICES = ("cpu", "cuda", "mps", "xpu")  # each with autocasting of its own


@dataclass(slots=True, kw_only=True)
class Traced:
    """A module's whole graph, and the names that its values go by.

    Attributes:
        module: the graph with the modules it calls, shared with the traced one.
        names: (name, depth, node) as they were computed: depth 1 is what the module's own forward calls.
        scopes: the path of the module whose forward made the node.
        num_leaves: how many modules were kept whole.
        changing: the nodes that were seen to change what they are given.
    """

    module: fx.GraphModule
    names: list[tuple[str, int, fx.Node]] = field(default_factory=list)
    scopes: dict[fx.Node, str] = field(default_factory=dict)
    num_leaves: int = 0
    changing: set[fx.Node] = field(default_factory=set)

    def returned(self) -> dict[str, fx.Node]:
        """Return the nodes that the module itself returns, by their keys."""
        found: dict[str, fx.Node] = {}

        def collect(value: Any, name: str) -> None:
            if isinstance(value, fx.Node) and value.op == "call_function" and isinstance(value.target, type):
                # a named tuple or a dataclass, which fx makes by calling its class
                collect(value.kwargs if is_dataclass(value.target) else value.args, name)
            elif isinstance(value, fx.Node):
                found[name] = value
            elif isinstance(value, dict | list | tuple):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    collect(item, f"{name}.{key}" if name else str(key))

        collect(self.module.graph.output_node().args[0], "")
        return found


class _Holder(nn.Module):
    """Calls the module as a user does, and takes the constants that fx would put on it."""

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
    """What a context changes and a graph does not record: gradients, inference mode, autocasting, saved tensors' hooks."""

    def __init__(self) -> None:
        self._is_outermost = False
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self._is_outermost = True
        return tensor

    def now(self) -> tuple[object, ...]:
        """Return the state; `hooks` must be entered, so that others (gradient checkpointing has some) are seen to hide them."""
        nesting = torch.autocast_increment_nesting()  # an autocast that is not enabled counts: it turns an outer one off
        torch.autocast_decrement_nesting()
        autocast = [(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES]
        self._is_outermost = False
        with torch.inference_mode(False), torch.enable_grad():
            torch.ones((), requires_grad=True).exp()
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), nesting, autocast, self._is_outermost


class _Proxy(fx.Proxy):
    """Refuses attributes that are set on it (`self.weight.data = ...`): a graph would leave them out."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise TypeError(f"a graph does not record that .{name} is set")
        object.__setattr__(self, name, value)


def _is_opaque(module: nn.Module) -> bool:
    """Whether a graph would leave out what a module does besides its forward: hooks, and a `train` of its own.

    That of torchvision's feature extractors switches between two graphs, which are compared.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    has_own_train = type(module).train is not nn.Module.train and not isinstance(module, fx.GraphModule)
    return any(hooks) or has_own_train


class _Tracer(fx.Tracer):
    """Records a module's graph, but for modules whose own forward enters a context: a graph would leave the context out."""

    proxy_buffer_attributes = True  # else what a forward computes from its buffers alone would become a constant

    def __init__(self, leaves: set[str], surroundings: _Surroundings) -> None:
        super().__init__()
        self.leaves = leaves
        self.surroundings = surroundings
        self.entered = [(ROOT, surroundings.now())]  # the modules whose forward runs, and the state when it began
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
    """Return the module's graph, or None where its own forward cannot be traced.

    A submodule that cannot be traced stays a module that the graph calls; it and those of its class are added to `leaves`.
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
        except Exception:  # noqa: BLE001 (whatever the module's code makes of a proxy: it then runs as it is)
            return None
        if _random_states() != random_states:
            return None  # something was drawn, and would be the same in every call
        names = _unique(tracer.named)
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
